// Leases of models with many experts: each is one message of at most 4 MiB, and yet has what the
// worker reads. The sizes are Qwen3-30B-A3B's: 48 layers of 128 experts of three linears each.
#include "server/dispatch/make_lease.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "records/blob_names.h"
#include "server/dispatch/transitions.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

constexpr int kLayers = 48, kExperts = 128;
constexpr size_t kMessage = size_t{4} << 20;
constexpr Moment kNow = {.wall_us = 1'000'000, .steady_us = 1'000'000};
constexpr Moment kSoon = {.wall_us = 2'000'000, .steady_us = 2'000'000};
const char* const kFormats[] = {"int2-g128", "int3-g128", "int4-g128", "int8-g128"};

std::string UnitOf(int layer) { return absl::StrCat("layers.", layer, ".mlp.experts"); }

template <typename Visit>
void ForEachLinear(int layer, const Visit& visit) {
  for (int e = 0; e < kExperts; ++e) {
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      visit(absl::StrCat("model.layers.", layer, ".mlp.experts.", e, ".", part));
    }
  }
}

v1::Model ManyExperts() {
  v1::Model model;
  model.set_name("models/experts");
  model.mutable_source()->set_directory("/models/experts");
  v1::ModelManifest& manifest = *model.mutable_manifest();
  manifest.set_digest(Sha256Hex("experts"));
  manifest.set_architecture("Qwen3MoeForCausalLM");
  manifest.set_tokenizer_digest(Sha256Hex("tokenizer"));
  manifest.set_config_digest(Sha256Hex("config"));
  manifest.add_files()->set_name("config.json");
  for (int l = 0; l < kLayers; ++l) {
    manifest.add_layer_digests(Sha256Hex(absl::StrCat(l)));
    v1::InventoryUnit& unit = *manifest.mutable_inventory()->add_units();
    unit.set_name(UnitOf(l));
    unit.set_layer(l);
    ForEachLinear(l, [&](const std::string& module) {
      v1::InventoryLinear& linear = *unit.add_linears();
      linear.set_module(module);
      linear.set_name(module.substr(module.find("mlp")));
      linear.set_out_features(768);
      linear.set_in_features(2048);
    });
  }
  return model;
}

v1::TaskOutput QuantizedLayer(int layer) {
  v1::TaskOutput output;
  for (const char* format : kFormats) {
    v1::NamedBlob& blob = *output.add_blobs();
    blob.set_name(UnitBlobName(UnitOf(layer), format));
    blob.mutable_blob()->set_sha256(Sha256Hex(blob.name()));
    ForEachLinear(layer, [&](const std::string& module) {
      v1::LinearReport& linear = *output.mutable_quantize()->mutable_report()->add_linears();
      linear.set_module(module);
      linear.set_unit(UnitOf(layer));
      linear.set_format(format);
      linear.set_method("gptq");
      linear.set_relative_weight_error(0.01);
      linear.set_calibrated_error(0.02);
      linear.set_damping(0.01);
    });
  }
  v1::NamedBlob& edits = *output.add_blobs();
  edits.set_name(EditsBlobName(layer));
  edits.mutable_blob()->set_sha256(Sha256Hex(edits.name()));
  return output;
}

// A job's task whose inputs are all layers quantized in four formats, with the worker to run it.
class MakeLeaseTest : public ::testing::Test {
 protected:
  MakeLeaseTest() : state_(DispatchOptions()) {
    model_ = ManyExperts();
    state_.Load(model_);
    v1::JobRecord job;
    job.mutable_job()->set_name("jobs/a");
    state_.Load(job);
    for (int l = 0; l < kLayers; ++l) {
      v1::TaskRecord quantized;
      quantized.set_key(absl::StrCat("quantize-", l));
      quantized.set_kind("quantize");
      quantized.set_state(v1::TaskRecord::DONE);
      quantized.add_jobs("jobs/a");
      *quantized.mutable_output() = QuantizedLayer(l);
      v1::TaskDependency& dependency = *task_.add_dependencies();
      dependency.set_key(quantized.key());
      dependency.set_role("quantize");
      dependency.set_layer(l);
      inputs_bytes_ += quantized.output().ByteSizeLong();
      state_.Load(std::move(quantized), kNow);
    }
    task_.set_key("the task");
    task_.set_model("models/experts");
    task_.set_state(v1::TaskRecord::READY);
    task_.add_jobs("jobs/a");
  }

  static v1::PlanSummary Plan() {
    v1::PlanSummary plan;
    for (int l = 0; l < kLayers; ++l) {
      v1::UnitChoice& unit = *plan.add_units();
      unit.set_unit(UnitOf(l));
      unit.set_layer(l);
      unit.set_format(kFormats[l % 4]);
    }
    plan.add_edited_layers(7);
    return plan;
  }

  v1::Lease Lease() const { return MakeLease(Draft(state_, kNow), task_, 30'000'000); }

  v1::RegisterWorkerRequest Register() {
    v1::WorkerRecord worker;
    worker.mutable_registration()->set_worker_id("w");
    worker.mutable_registration()->set_incarnation("one");
    v1::TaskKindVersion& kind = *worker.mutable_registration()->add_kinds();
    kind.set_kind("trial");
    kind.set_version(1);
    state_.Load(worker, kNow);
    return worker.registration();
  }

  v1::Model model_;
  DispatchState state_;
  v1::TaskRecord task_;
  size_t inputs_bytes_ = 0;
};

TEST_F(MakeLeaseTest, APlansTaskOfManyExpertsFitsIntoAMessage) {
  // What was sent before, more than a message takes.
  ASSERT_GT(inputs_bytes_, kMessage);
  ASSERT_GT(model_.manifest().ByteSizeLong(), size_t{1} << 20);
  *task_.mutable_spec()->mutable_trial()->mutable_plan() = Plan();
  EXPECT_LT(Lease().ByteSizeLong(), kMessage / 16);
  *task_.mutable_spec()->mutable_assemble()->mutable_plan() = Plan();
  EXPECT_LT(Lease().ByteSizeLong(), kMessage / 16);
  *task_.mutable_spec()->mutable_verify()->mutable_plan() = Plan();
  EXPECT_LT(Lease().ByteSizeLong(), kMessage / 16);
}

TEST_F(MakeLeaseTest, APlansTaskHasTheBlobsOfItsPlanAndNoOthers) {
  *task_.mutable_spec()->mutable_trial()->mutable_plan() = Plan();
  std::set<std::string> names;
  const v1::Lease lease = Lease();
  for (const v1::TaskInput& input : lease.inputs()) {
    EXPECT_EQ(input.role(), "quantize");
    for (const v1::NamedBlob& blob : input.output().blobs()) {
      EXPECT_EQ(blob.blob().sha256(), Sha256Hex(blob.name()));
      names.insert(blob.name());
    }
  }
  std::set<std::string> planned = {EditsBlobName(7)};
  for (int l = 0; l < kLayers; ++l) planned.insert(UnitBlobName(UnitOf(l), kFormats[l % 4]));
  EXPECT_EQ(names, planned);
}

TEST_F(MakeLeaseTest, AScorersTaskKeepsTheReportOfItsLayer) {
  *task_.mutable_dependencies()->Mutable(0) = task_.dependencies(5);
  task_.mutable_dependencies()->DeleteSubrange(1, kLayers - 1);
  task_.mutable_spec()->mutable_score()->set_layer(5);
  const v1::Lease lease = Lease();
  ASSERT_EQ(lease.inputs_size(), 1);
  EXPECT_EQ(lease.inputs(0).output().quantize().report().linears_size(), kExperts * 3 * 4);
  EXPECT_EQ(lease.inputs(0).output().blobs_size(), 5);
  EXPECT_LT(lease.ByteSizeLong(), kMessage / 8);
}

TEST_F(MakeLeaseTest, TheManifestHasWhatTellsAChangedModel) {
  task_.mutable_spec()->mutable_trial();
  const v1::ModelManifest manifest = Lease().spec().trial().model().manifest();
  EXPECT_EQ(manifest.digest(), model_.manifest().digest());
  EXPECT_EQ(manifest.files_size(), 1);
  EXPECT_EQ(manifest.architecture(), "Qwen3MoeForCausalLM");
  EXPECT_EQ(manifest.tokenizer_digest(), model_.manifest().tokenizer_digest());
  EXPECT_EQ(manifest.config_digest(), model_.manifest().config_digest());
  EXPECT_EQ(manifest.inventory().units_size(), 0);
}

TEST_F(MakeLeaseTest, ATaskThatFitsInNoMessageIsGivenUpWithAReason) {
  const v1::RegisterWorkerRequest worker = Register();
  task_.set_kind("trial");
  v1::PlanSummary& plan = *task_.mutable_spec()->mutable_trial()->mutable_plan();
  for (int i = 0; i < 100'000; ++i) {
    plan.add_units()->set_unit(absl::StrCat("layers.0.mlp.experts.of.a.model.far.too.large.", i));
  }
  state_.Load(task_, kNow);
  state_.AdvanceTo(kSoon);
  Draft draft(state_, kSoon);
  v1::LeaseTasksRequest request;
  request.set_worker_id("w");
  request.set_incarnation(worker.incarnation());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto leases, LeaseTasks(draft, request));
  EXPECT_TRUE(leases.empty());
  const v1::JobRecord* job = draft.FindJob("jobs/a");
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->job().state(), v1::Job::FAILED);
  EXPECT_EQ(job->job().failure().reason(), "LEASE_TOO_LARGE");
}

TEST_F(MakeLeaseTest, LeasesOfOneAnswerFitIntoAMessageTogether) {
  const v1::RegisterWorkerRequest worker = Register();
  task_.set_kind("trial");
  task_.clear_dependencies();
  v1::PlanSummary& plan = *task_.mutable_spec()->mutable_trial()->mutable_plan();
  plan.set_explanation(std::string(kMessage / 3, 'x'));
  for (const char* key : {"one", "two", "three", "four"}) {
    task_.set_key(key);
    state_.Load(task_, kNow);
  }
  state_.AdvanceTo(kSoon);
  Draft draft(state_, kSoon);
  v1::LeaseTasksRequest request;
  request.set_worker_id("w");
  request.set_incarnation(worker.incarnation());
  request.set_max_tasks(4);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto leases, LeaseTasks(draft, request));
  EXPECT_EQ(leases.size(), 2u);
}

}  // namespace
}  // namespace lwq
