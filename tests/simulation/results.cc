// Results of tasks, made up: of the right kind, and the same for each run of a task.
#include "absl/strings/str_cat.h"
#include "records/blob_names.h"
#include "server/blob/blob_store.h"
#include "server/dispatch/task_key.h"
#include "tests/simulation/worker.h"

namespace lwq::simulation {
namespace {

class Result {
 public:
  explicit Result(std::vector<std::string>& contents) : contents_(contents) {
    output.set_seconds(1);
  }

  void AddBlob(const std::string& name, const std::string& content) {
    const BlobId id = BlobIdOf(content);
    v1::NamedBlob& blob = *output.add_blobs();
    blob.set_name(name);
    blob.mutable_blob()->set_sha256(id.sha256);
    blob.mutable_blob()->set_size_bytes(id.size_bytes);
    contents_.push_back(content);
  }

  v1::TaskOutput output;

 private:
  std::vector<std::string>& contents_;
};

void Calibrate(const v1::Lease& lease, Result& result) {
  const v1::CalibrateTask& task = lease.spec().calibrate();
  v1::CalibrateResult& calibrated = *result.output.mutable_calibrate();
  for (int layer = task.first_layer(); layer < task.end_layer(); ++layer) {
    v1::LayerValues& values = *calibrated.add_layers();
    values.set_layer(layer);
    (*values.mutable_values())["layer-cosine"] = 0.5;
    const std::string name = absl::StrCat("hidden.", layer);
    result.AddBlob(name, absl::StrCat(lease.task(), name));
  }
  const std::string state = absl::StrCat("state.", task.end_layer());
  result.AddBlob(state, absl::StrCat(lease.task(), state));
}

void Quantize(const v1::Lease& lease, Result& result) {
  v1::LayerReport& report = *result.output.mutable_quantize()->mutable_report();
  for (const v1::UnitFormats& unit : lease.spec().quantize().units()) {
    for (const std::string& format : unit.formats()) {
      const std::string name = UnitBlobName(unit.unit(), format);
      // A product is made by whichever task needs it first.
      result.AddBlob(name, absl::StrCat("product ", name));
      v1::LinearReport& linear = *report.add_linears();
      linear.set_unit(unit.unit());
      linear.set_format(format);
    }
  }
}

void Score(const v1::Lease& lease, Result& result) {
  v1::ScoreResult& score = *result.output.mutable_score();
  score.set_layer(lease.spec().score().layer());
  score.set_has_costs(true);
  for (const v1::UnitFormats& unit : lease.spec().score().units()) {
    for (int f = 0; f < unit.formats_size(); ++f) {
      v1::UnitCost& cost = *score.add_costs();
      cost.set_unit(unit.unit());
      cost.set_format(unit.formats(f));
      cost.set_cost(1.0 / (2 + f));
    }
  }
}

}  // namespace

v1::TaskOutput OutputOf(const v1::Lease& lease, std::vector<std::string>& contents) {
  contents.clear();
  Result result(contents);
  const v1::TaskSpec& spec = lease.spec();
  if (spec.has_preflight()) result.output.mutable_preflight();
  if (spec.has_calibrate()) Calibrate(lease, result);
  if (spec.has_quantize()) Quantize(lease, result);
  if (spec.has_score()) Score(lease, result);
  if (spec.has_trial()) {
    // Another plan, another measure, the same each time.
    result.output.mutable_trial()->set_kl(0.1 + 0.001 * (lease.task()[0] % 16));
  }
  if (spec.has_assemble()) {
    const std::string weights = absl::StrCat("weights of ", lease.task());
    result.AddBlob("model.safetensors", weights);
    result.output.mutable_assemble()->set_weight_file_bytes(static_cast<int64_t>(weights.size()));
  }
  if (spec.has_verify()) {
    result.output.mutable_verify();
    result.AddBlob("lwq-manifest.json", absl::StrCat("manifest of ", lease.task()));
  }
  if (spec.has_evaluate()) {
    v1::EvaluationResult& evaluation = *result.output.mutable_evaluate();
    evaluation.set_subject(spec.evaluate().subject());
    evaluation.set_dataset(spec.evaluate().dataset_name());
    evaluation.mutable_choice()->add_items()->set_gold(1);
  }
  return result.output;
}

v1::RegisterWorkerRequest RegistrationOf(const std::string& id, const std::string& incarnation,
                                         int version) {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(id);
  request.set_incarnation(incarnation);
  request.set_protocol(2);
  request.set_numerics_class("cpu-1");
  request.add_families("llama");
  for (absl::string_view kind : TaskKinds()) {
    v1::TaskKindVersion& known = *request.add_kinds();
    known.set_kind(std::string(kind));
    known.set_version(version);
  }
  request.add_quantizers()->set_name("rtn");
  v1::Capability& gptq = *request.add_quantizers();
  gptq.set_name("gptq");
  gptq.set_needs_calibration(true);
  v1::Capability& kl = *request.add_scorers();
  kl.set_name("kl");
  kl.set_needs_calibration(true);
  kl.set_needs_quantized(true);
  kl.set_needs_hidden_states(true);
  kl.set_gives_costs(true);
  return request;
}

}  // namespace lwq::simulation
