// A trial against the scorer: a plan that quantizes one unit and leaves the rest as it is does to
// the model what the kl scorer says that this unit costs. The two share the divergence and nothing
// else of how they get there.
#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "gmock/gmock.h"
#include "records/plan_records.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/runner/local_blobs.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

constexpr char kTwoBits[] = "int2-g128";

class TrialTaskTest : public ::testing::Test {
 protected:
  static constexpr int64_t kScoreTokens = 64;

  void SetUp() override {
    // Of this case alone: cases may run at once.
    directory_ = absl::StrCat(::testing::TempDir(), "/trial_task_test_",
                              ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    model_.set_directory(absl::StrCat(directory_, "/model"));
    MakeModel(/*tied=*/false);
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 2}));
    blobs_ = std::make_unique<testing::LocalBlobs>(directory_);
    calibration_.mutable_dataset()->set_sha256(LWQ_SOURCE_DIR "/examples/calibration/books.txt");
    calibration_.set_dataset_kind(v1::Dataset::TEXT);
    calibration_.set_num_tokens(
        kScoreTokens);  // one sequence, for all uses: costs and trials compare
    calibration_.set_sequence_length(64);
    recipe_.set_method("rtn");
  }

  void MakeModel(bool tied, testing::TinyModelOptions options = {}) {
    std::filesystem::remove_all(model_.directory());
    options.tied_embeddings = tied;
    ASSERT_OK(testing::WriteTinyModel(options, model_.directory()));
  }

  // The model as the artifacts of `format_` have it planned.
  absl::StatusOr<ModelInventory> Inventory() const {
    LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(model_));
    return PlannedAs(*format_, std::move(model.inventory));
  }

  // All uses have text of the same size.
  static v1::HeldOutText HeldOutSizes() {
    v1::HeldOutText sizes;
    sizes.set_score_tokens(kScoreTokens);
    sizes.set_trial_tokens(kScoreTokens);
    sizes.set_judge_tokens(kScoreTokens);
    return sizes;
  }

  void TearDown() override { std::filesystem::remove_all(directory_); }

  absl::StatusOr<v1::TaskOutput> Run(v1::TaskSpec spec, const std::vector<v1::TaskInput>& inputs) {
    v1::Lease lease;
    *lease.mutable_spec() = std::move(spec);
    for (const v1::TaskInput& input : inputs) *lease.add_inputs() = input;
    TaskContext context;
    context.device = device_.get();
    context.blobs = blobs_.get();
    context.lease = &lease;
    context.progress = [this](double, const std::string& said) {
      said_.push_back(said);
      return absl::OkStatus();
    };
    return RunTask(context);
  }

  static v1::TaskInput Input(const std::string& role, v1::TaskOutput output) {
    v1::TaskInput input;
    input.set_role(role);
    *input.mutable_output() = std::move(output);
    return input;
  }

  void Calibrate() {
    v1::TaskSpec spec;
    v1::CalibrateTask& task = *spec.mutable_calibrate();
    *task.mutable_model() = model_;
    *task.mutable_calibration() = calibration_;
    *task.mutable_held_out() = HeldOutSizes();
    task.set_end_layer(2);
    task.set_hidden_states(true);
    for (const std::string& name : evidence_) task.add_evidence(name);
    LWQ_ASSERT_OK_AND_ASSIGN(v1::TaskOutput output, Run(spec, {}));
    inputs_.push_back(Input("calibrate", std::move(output)));
  }

  // The units of a layer, each in `format`.
  void AddUnits(int layer, const std::string& format,
                google::protobuf::RepeatedPtrField<v1::UnitFormats>* units) {
    LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory inventory, Inventory());
    for (const AllocationUnit& unit : inventory.units) {
      if (unit.place != PlaceOfRecord(layer)) continue;
      v1::UnitFormats& wanted = *units->Add();
      wanted.set_unit(unit.name);
      wanted.add_formats(format);
    }
  }

  void Quantize(int layer, const std::string& format) {
    v1::TaskSpec spec;
    v1::QuantizeTask& task = *spec.mutable_quantize();
    *task.mutable_model() = model_;
    *task.mutable_recipe() = recipe_;
    task.set_layer(layer);
    task.set_edits(edits_);
    AddUnits(layer, format, task.mutable_units());
    LWQ_ASSERT_OK_AND_ASSIGN(v1::TaskOutput output, Run(spec, inputs_));
    inputs_.push_back(Input("quantize", std::move(output)));
  }

  // Costs of a layer's units in `format`, by name.
  std::map<std::string, double> Score(int layer, const std::string& format) {
    v1::TaskSpec spec;
    v1::ScoreTask& task = *spec.mutable_score();
    *task.mutable_model() = model_;
    *task.mutable_calibration() = calibration_;
    *task.mutable_recipe() = recipe_;
    task.set_scorer("kl");
    task.set_layer(layer);
    task.set_edited(edits_);
    AddUnits(layer, format, task.mutable_units());
    *task.mutable_held_out() = HeldOutSizes();
    const absl::StatusOr<v1::TaskOutput> output = Run(spec, inputs_);
    EXPECT_OK(output);
    std::map<std::string, double> costs;
    if (!output.ok()) return costs;
    for (const v1::UnitCost& cost : output->score().costs()) costs[cost.unit()] = cost.cost();
    return costs;
  }

  // The KL of the plan with these units in these formats.
  absl::StatusOr<v1::TrialResult> Trial(const std::map<std::string, std::string>& formats,
                                        const std::vector<int>& edited = {}) {
    v1::TaskSpec spec;
    v1::TrialTask& task = *spec.mutable_trial();
    *task.mutable_model() = model_;
    *task.mutable_calibration() = calibration_;
    *task.mutable_held_out() = HeldOutSizes();
    LWQ_ASSIGN_OR_RETURN(const ModelInventory inventory, Inventory());
    task.mutable_plan()->set_artifact_format(std::string(format_->name));
    for (const int layer : edited) task.mutable_plan()->add_edited_layers(layer);
    for (const AllocationUnit& unit : inventory.units) {
      v1::UnitChoice& choice = *task.mutable_plan()->add_units();
      choice.set_unit(unit.name);
      choice.set_layer(RecordedLayer(unit.place));
      const auto found = formats.find(unit.name);
      choice.set_format(found == formats.end() ? "dense" : found->second);
    }
    LWQ_ASSIGN_OR_RETURN(const v1::TaskOutput output, Run(spec, inputs_));
    return output.trial();
  }

  std::string directory_;
  const ArtifactFormatDef* format_ = &ArtifactFormatDefs::compressed_tensors;
  v1::ModelInput model_;
  v1::CalibrationInput calibration_;
  v1::Recipe recipe_;
  std::vector<std::string> evidence_ = {"layer-cosine"};
  bool edits_ = false;
  std::unique_ptr<Device> device_;
  std::unique_ptr<testing::LocalBlobs> blobs_;
  std::vector<v1::TaskInput> inputs_;
  std::vector<std::string> said_;  // by tasks, of how far they are
};

// A scorer that ranks layers leaves the other plain orders too, so far as it knows what they ask for.
TEST_F(TrialTaskTest, ARankLeavesTheOrdersOfTheBaselinesBesideItsOwn) {
  Calibrate();
  const std::map<std::string, std::vector<std::string>> beside = {
      {"bi", {"lim", "zd"}}, {"lim", {"zd"}}, {"random", {"zd"}}};
  for (const auto& [scorer, expected] : beside) {
    v1::TaskSpec spec;
    v1::ScoreTask& task = *spec.mutable_score();
    *task.mutable_model() = model_;
    *task.mutable_calibration() = calibration_;
    *task.mutable_held_out() = HeldOutSizes();
    task.set_scorer(scorer);
    task.set_layer(1);
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput output, Run(spec, inputs_));
    std::vector<std::string> names;
    for (const auto& [name, value] : output.score().rankings()) names.push_back(name);
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, expected) << scorer;
  }
}

TEST_F(TrialTaskTest, OneUnitAloneCostsWhatTheScorerSays) {
  Calibrate();
  for (int layer : {0, 1, -1}) {
    Quantize(layer, kTwoBits);
    const std::map<std::string, double> costs = Score(layer, kTwoBits);
    EXPECT_EQ(costs.size(), layer < 0 ? 1 : 4);
    for (const auto& [unit, cost] : costs) {
      LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult trial, Trial({{unit, kTwoBits}}));
      EXPECT_GT(trial.kl(), 1e-6) << unit;
      // The same sums in F32, over rows that products may cut otherwise.
      EXPECT_NEAR(trial.kl(), cost, 1e-3 * cost) << unit;
      EXPECT_GT(trial.standard_error(), 0);
      EXPECT_LT(trial.standard_error(), trial.kl());
    }
  }
}

// In GGUF blocks every linear is a unit, and so is the embedding, which is the head too where the
// two are tied.
TEST_F(TrialTaskTest, EveryUnitOfAGgufPlanCostsWhatTheScorerSays) {
  constexpr char kBlocks[] = "gguf-q4_0";
  format_ = &ArtifactFormatDefs::gguf;
  for (const bool tied : {false, true}) {
    MakeModel(tied);
    inputs_.clear();
    Calibrate();
    size_t num_units = 0;
    for (const Place place : {Place::Layer(1), Place::Head(), Place::Embedding()}) {
      if (tied && place == Place::Head()) continue;
      const int layer = RecordedLayer(place);
      Quantize(layer, kBlocks);
      for (const auto& [unit, cost] : Score(layer, kBlocks)) {
        LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult trial, Trial({{unit, kBlocks}}));
        EXPECT_GT(trial.kl(), 1e-7) << unit;
        EXPECT_NEAR(trial.kl(), cost, 2e-3 * cost) << unit << (tied ? ", tied" : "");
        ++num_units;
      }
    }
    EXPECT_EQ(num_units, tied ? 8u : 9u);
  }
}

// A method that moves scales into the layer's other tensors: the scorer sees a unit without its
// scales among the source's tensors, the trial sees it with them among the edited ones.
TEST_F(TrialTaskTest, UnitsAmongEditedTensorsCostWhatTheScorerSays) {
  testing::TinyModelOptions options;
  options.outlier_exponent = 4;
  options.dtype = DType::kF32;  // nothing that stays dense is rounded
  MakeModel(/*tied=*/false, options);
  recipe_.set_method("awq");
  evidence_ = {"channel-statistics", "layer-cosine", "second-moments"};
  edits_ = true;
  Calibrate();
  for (const int layer : {0, 1}) {
    Quantize(layer, kTwoBits);
    for (const auto& [unit, cost] : Score(layer, kTwoBits)) {
      LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult trial, Trial({{unit, kTwoBits}}, {layer}));
      EXPECT_GT(trial.kl(), 1e-6) << unit;
      EXPECT_NEAR(trial.kl(), cost, 2e-3 * cost) << unit;
      const bool reads_norm =
          absl::StrContains(unit, "qkv_proj") || absl::StrContains(unit, "gate_up_proj");
      if (!reads_norm) continue;
      LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult without, Trial({{unit, kTwoBits}}));
      EXPECT_GT(without.kl(), 2 * cost) << unit << " does not fit the source's own norms";
    }
  }
  // Nothing quantized, and all scales moved: the source.
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult dense, Trial({}, {0, 1}));
  EXPECT_NEAR(dense.kl(), 0, 1e-8);
  recipe_.set_method("rtn");
  EXPECT_EQ(Trial({}, {2}).status().code(), absl::StatusCode::kInternal) << "no such edits";
}

// Each of its buffers may have so many bytes.
class SmallDevice : public ReferenceDevice {
 public:
  explicit SmallDevice(int64_t most) : most_(most) {}

 protected:
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes) override {
    if (rows * cols * element_bytes > most_) return Failure(reasons::kHostOom, "too small");
    return ReferenceDevice::Allocate(rows, cols, element_bytes);
  }

 private:
  const int64_t most_;
};

// A row has 384 numbers of queries, keys and values: 256 rows fit, the 512 that a task begins with
// do not.
TEST_F(TrialTaskTest, ATaskWhoseMemoryRunsOutRunsAgainWithLessAtATime) {
  calibration_.set_num_tokens(512);
  const auto states = [&] {
    inputs_.clear();
    said_.clear();
    Calibrate();
    std::string content;
    for (const v1::NamedBlob& blob : inputs_.at(0).output().blobs()) {
      if (blob.name() == HiddenBlobName(2)) content = *ReadFile(blob.blob().sha256(), 1 << 20);
    }
    return content;
  };
  device_ = std::make_unique<ReferenceDevice>();
  const std::string expected = states();
  EXPECT_THAT(said_, ::testing::Not(::testing::Contains(::testing::HasSubstr("memory ran out"))));
  device_ = std::make_unique<SmallDevice>(600'000);
  EXPECT_EQ(states(), expected);
  EXPECT_THAT(said_, ::testing::Contains(::testing::HasSubstr("memory ran out")).Times(3));
  device_ = std::make_unique<SmallDevice>(200'000);  // the smallest does not fit either
  v1::TaskSpec spec;
  *spec.mutable_calibrate()->mutable_model() = model_;
  *spec.mutable_calibrate()->mutable_calibration() = calibration_;
  spec.mutable_calibrate()->set_end_layer(2);
  EXPECT_THAT(Run(spec, {}).status(), testing::FailsWith("HOST_OOM", ::testing::_));
}

TEST_F(TrialTaskTest, WhatTasksWriteIsHashedWhileItIsWritten) {
  evidence_ = {"second-moments", "channel-statistics"};
  Calibrate();
  Quantize(0, kTwoBits);
  int num_blobs = 0;
  for (const v1::TaskInput& input : inputs_) {
    for (const v1::NamedBlob& blob : input.output().blobs()) {
      EXPECT_EQ(blobs_->hashed().at(blob.name()), *Sha256HexOfFile(blob.blob().sha256()))
          << blob.name();
      ++num_blobs;
    }
  }
  EXPECT_GT(num_blobs, 10);
}

TEST_F(TrialTaskTest, TheSourceItselfCostsNothing) {
  Calibrate();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult trial, Trial({}));
  EXPECT_NEAR(trial.kl(), 0, 1e-9);
}

TEST_F(TrialTaskTest, UnitsOfSeveralLayersAreExchangedTogether) {
  Calibrate();
  Quantize(0, kTwoBits);
  Quantize(1, kTwoBits);
  const std::string first = "layers.0.mlp.down_proj", second = "layers.1.mlp.down_proj";
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult one, Trial({{first, kTwoBits}}));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult other, Trial({{second, kTwoBits}}));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TrialResult both,
                           Trial({{first, kTwoBits}, {second, kTwoBits}}));
  EXPECT_GT(both.kl(), 1.2 * std::max(one.kl(), other.kl()));
}

TEST_F(TrialTaskTest, AFormatThatNoBlobHoldsIsAnError) {
  Calibrate();
  Quantize(0, kTwoBits);
  EXPECT_EQ(Trial({{"layers.0.mlp.down_proj", "int3-g128"}}).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace lwq
