#include "bench/service/load_tasks.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "records/blob_names.h"
#include "server/dispatch/task_key.h"

namespace lwq::bench {
namespace {

v1::ModelManifest Manifest(const std::string& directory, int num_layers) {
  v1::ModelManifest manifest;
  manifest.set_digest(Sha256Hex("model"));
  manifest.set_family("llama");
  struct stat info;
  stat((directory + "/config.json").c_str(), &info);
  v1::ModelFile& file = *manifest.add_files();
  file.set_name("config.json");
  file.set_size_bytes(info.st_size);
  file.set_modified_ns(info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec);
  v1::Inventory& inventory = *manifest.mutable_inventory();
  inventory.set_num_layers(num_layers);
  inventory.set_weight_dtype("F16");
  inventory.set_hidden_size(128);
  inventory.set_intermediate_size(128);
  inventory.set_vocab_size(256);
  inventory.set_num_heads(2);
  inventory.set_num_kv_heads(2);
  inventory.set_head_dim(64);
  inventory.set_max_positions(512);
  for (int layer = 0; layer < num_layers; ++layer) {
    manifest.add_layer_digests(Sha256Hex(absl::StrCat(layer)));
    v1::InventoryUnit& unit = *inventory.add_units();
    unit.set_name(absl::StrCat("layers.", layer, ".mlp.down_proj"));
    unit.set_layer(layer);
    unit.set_part(v1::PART_LAYER);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_module(absl::StrCat("model.layers.", layer, ".mlp.down_proj"));
    linear.set_out_features(128);
    linear.set_in_features(128);
  }
  return manifest;
}

void AddBlob(const std::string& name, const v1::BlobRef& blob, v1::TaskOutput& output) {
  v1::NamedBlob& named = *output.add_blobs();
  named.set_name(name);
  *named.mutable_blob() = blob;
}

void Quantize(const v1::QuantizeTask& task, const v1::BlobRef& blob, v1::TaskOutput& output) {
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  for (const v1::UnitFormats& unit : task.units()) {
    for (const std::string& format : unit.formats()) {
      AddBlob(UnitBlobName(unit.unit(), format), blob, output);
      v1::LinearReport& linear = *report.add_linears();
      linear.set_unit(unit.unit());
      linear.set_format(format);
    }
  }
}

void Score(const v1::ScoreTask& task, v1::TaskOutput& output) {
  v1::ScoreResult& score = *output.mutable_score();
  score.set_layer(task.layer());
  score.set_has_costs(true);
  for (const v1::UnitFormats& unit : task.units()) {
    for (int f = 0; f < unit.formats_size(); ++f) {
      v1::UnitCost& cost = *score.add_costs();
      cost.set_unit(unit.unit());
      cost.set_format(unit.formats(f));
      cost.set_cost(1.0 / (2 + f));
    }
  }
}

}  // namespace

v1::RegisterWorkerRequest RegistrationOf(const std::string& id, const std::string& incarnation) {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(id);
  request.set_incarnation(incarnation);
  request.set_protocol(2);
  request.set_numerics_class("cpu-1");
  request.add_families("llama");
  for (absl::string_view kind : TaskKinds()) {
    v1::TaskKindVersion& known = *request.add_kinds();
    known.set_kind(std::string(kind));
    known.set_version(1);
  }
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

v1::CreateJobRequest JobRequest(int number) {
  v1::CreateJobRequest request;
  v1::QuantizeSpec& spec = *request.mutable_job()->mutable_spec()->mutable_quantize();
  spec.set_model("models/m");
  spec.set_allocator("knapsack");
  spec.mutable_budget()->set_bits_per_weight(4.5);
  spec.mutable_calibration()->set_dataset("datasets/builtin-mixed");
  spec.mutable_calibration()->set_num_tokens(4096 + number);
  spec.mutable_evaluation()->set_text_dataset("datasets/builtin-mixed");
  return request;
}

v1::TaskOutput OutputOf(const v1::Lease& lease, const std::string& directory, int num_layers,
                        const v1::BlobRef& blob) {
  v1::TaskOutput output;
  output.set_seconds(0.1);
  const v1::TaskSpec& spec = lease.spec();
  if (spec.has_ingest()) *output.mutable_ingest() = Manifest(directory, num_layers);
  if (spec.has_preflight()) output.mutable_preflight();
  if (spec.has_calibrate()) {
    output.mutable_calibrate();
    const v1::CalibrateTask& task = spec.calibrate();
    for (int layer = task.first_layer(); layer < task.end_layer(); ++layer) {
      AddBlob(absl::StrCat("hidden.", layer), blob, output);
    }
    AddBlob(absl::StrCat("state.", task.end_layer()), blob, output);
  }
  if (spec.has_quantize()) Quantize(spec.quantize(), blob, output);
  if (spec.has_score()) Score(spec.score(), output);
  if (spec.has_assemble()) {
    AddBlob("model.safetensors", blob, output);
    output.mutable_assemble()->set_weight_file_bytes(blob.size_bytes());
  }
  if (spec.has_verify()) {
    output.mutable_verify();
    AddBlob("lwq-manifest.json", blob, output);
  }
  if (spec.has_evaluate()) {
    output.mutable_evaluate()->set_subject(spec.evaluate().subject());
    output.mutable_evaluate()->set_dataset(spec.evaluate().dataset_name());
    output.mutable_evaluate()->mutable_choice()->add_items()->set_gold(1);
  }
  return output;
}

}  // namespace lwq::bench
