// Proves an artifact: opened again from its own files, every tensor is compared with the plan's
// codes and scales or the source's bytes, and the logits with those of the plan's dequantized
// weights.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "records/option_records.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/model/checkpoint_weights.h"
#include "worker/engine/model/head_pass.h"
#include "worker/runner/artifact_input.h"
#include "worker/runner/task_memory.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kProofTokens = 128;

// A model with what its last layer makes of some tokens.
struct RanModel {
  std::unique_ptr<Decoder> decoder;
  Matrix hidden;
};

absl::StatusOr<RanModel> RunModel(const TaskContext& context, const DecoderSpec& spec,
                                  const WeightSource& weights, ComputeType compute,
                                  absl::string_view what) {
  RanModel model;
  LWQ_ASSIGN_OR_RETURN(model.decoder,
                       OpenDecoder(context, spec, &weights, compute, /*chunk_tokens=*/0));
  std::vector<int32_t> tokens(std::min(kProofTokens, spec.max_positions));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>((i * 7919 + 1) % spec.vocab_size);
  }
  TokenBatch batch;
  batch.Add(tokens);
  model.hidden = Matrix(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*model.decoder, batch, model.hidden.view(), [&](int layer) {
    return context.progress(0.5, absl::StrCat("logits of the ", what, ", layer ", layer));
  }));
  return model;
}

// The largest |a - b| of two equally large views of device memory; infinite where one is not a
// number.
absl::StatusOr<double> LargestDifference(Device* device, DeviceView<const float> a,
                                         DeviceView<const float> b) {
  Matrix x(a.rows, a.cols), y(a.rows, a.cols);
  LWQ_RETURN_IF_ERROR(device->Download(a, x.view()));
  LWQ_RETURN_IF_ERROR(device->Download(b, y.view()));
  double worst = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const double difference = std::abs(double{x.data()[i]} - double{y.data()[i]});
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
  }
  return worst;
}

// Both sides compute with equal weights on one device, so not even the last bit may differ; NaN on
// either side fails too.
absl::Status CompareLogits(Device* device, const RanModel& artifact, const RanModel& planned,
                           v1::VerifyResult& result) {
  const HeadRows artifact_head = HeadOf(*artifact.decoder), planned_head = HeadOf(*planned.decoder);
  HeadPass pass;
  pass.sides = {{artifact.decoder.get(), &artifact_head, artifact.hidden.view()},
                {planned.decoder.get(), &planned_head, planned.hidden.view()}};
  double worst = 0;
  int64_t compared = 0;
  LWQ_RETURN_IF_ERROR(RunHeadPass(pass, [&](const LogitTile& tile) -> absl::Status {
    if (tile.side == 0) return absl::OkStatus();
    LWQ_ASSIGN_OR_RETURN(const double difference,
                         LargestDifference(device, tile.first, tile.logits));
    worst = std::max(worst, difference);
    compared += tile.logits.rows * tile.logits.cols;
    return absl::OkStatus();
  }));
  result.set_logits_compared(compared);
  result.set_max_abs_logit_difference(worst);
  if (worst == 0) return absl::OkStatus();
  return Failure(reasons::kVerifyMismatch,
                 absl::StrCat("the artifact's logits differ from those of the planned "
                              "weights by up to ",
                              worst));
}

Json PlanJson(const v1::PlanSummary& plan) {
  Json units = Json::array();
  for (const v1::UnitChoice& unit : plan.units()) {
    units.push_back({{"unit", unit.unit()}, {"format", unit.format()}});
  }
  return {{"bits_per_weight", plan.bits_per_weight()},
          {"weight_file_bytes", plan.weight_file_bytes()},
          {"units", std::move(units)}};
}

// No times, names or places: the same work gives the same bytes.
std::string ManifestJson(const TaskContext& context, const v1::VerifyTask& task,
                         const OpenedModel& source) {
  Json files = Json::array();
  for (const v1::TaskInput& input : context.lease->inputs()) {
    if (input.role() != "assemble") continue;
    for (const v1::NamedBlob& file : input.output().blobs()) {
      files.push_back({{"name", file.name()},
                       {"bytes", file.blob().size_bytes()},
                       {"sha256", file.blob().sha256()}});
    }
  }
  Json source_files = Json::array();
  for (const v1::ModelFile& file : task.model().manifest().files()) {
    source_files.push_back(
        {{"name", file.name()}, {"bytes", file.size_bytes()}, {"sha256", file.sha256()}});
  }
  const v1::Recipe& recipe = task.recipe();
  const std::string coding = DescribeCoding(*source.checkpoint);
  const absl::string_view weights =
      coding.empty() ? NameOf(source.inventory.weight_dtype) : absl::string_view(coding);
  const Json manifest = {{"lwq_manifest", 3},
                         {"files", std::move(files)},
                         {"plan", PlanJson(task.plan())},
                         {"provenance",
                          {{"lwq_version", LWQ_VERSION},
                           {"numerics_class", context.device->NumericsClass()},
                           {"recipe",
                            {{"method", recipe.method()},
                             {"compute", recipe.compute().empty() ? "f32" : recipe.compute()},
                             {"options", TextsOf(recipe.options())}}},
                           {"source",
                            {{"digest", task.model().manifest().digest()},
                             {"architecture", task.model().manifest().architecture()},
                             {"weights", weights},
                             {"files", std::move(source_files)}}}}}};
  return absl::StrCat(manifest.dump(1), "\n");
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunVerify(const TaskContext& context, const v1::VerifyTask& task) {
  LWQ_ASSIGN_OR_RETURN(auto planned, OpenPlannedArtifact(context, task.model(), task.plan()));
  LWQ_ASSIGN_OR_RETURN(std::string directory, MaterializeArtifact(context));
  LWQ_RETURN_IF_ERROR(context.progress(0.1, "comparing tensors"));
  const ContainerDef& container = ContainerOf(*planned->model.inventory.artifact_format);
  LWQ_ASSIGN_OR_RETURN(VerifyReport report,
                       container.verify(planned->Parts(task.max_shard_bytes()), directory));

  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.recipe().compute()));
  LWQ_ASSIGN_OR_RETURN(const ReadableArtifact artifact,
                       OpenArtifact(directory, planned->model.checkpoint->directory()));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadDecoderSpec(artifact.described_in));
  const auto kept = MakeKeptWeights(planned->model.checkpoint.get());
  LWQ_ASSIGN_OR_RETURN(auto planned_weights,
                       MakePlanWeights(kept.get(), planned->model.inventory, planned->plan,
                                       planned->blob_set, planned->edits_or_null()));
  LWQ_ASSIGN_OR_RETURN(const RanModel stored,
                       RunModel(context, spec, *artifact.weights, compute, "artifact"));
  LWQ_ASSIGN_OR_RETURN(const RanModel expected, RunModel(context, planned->spec(), *planned_weights,
                                                         compute, "planned weights"));
  v1::TaskOutput output;
  v1::VerifyResult& result = *output.mutable_verify();
  result.set_tensors_compared(report.num_quantized_linears + report.num_dense_tensors);
  LWQ_RETURN_IF_ERROR(CompareLogits(context.device, stored, expected, result));

  const std::string path = JoinPath(context.blobs->ScratchDirectory(), "lwq-manifest.json");
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(path, ManifestJson(context, task, planned->model)));
  LWQ_RETURN_IF_ERROR(AddBlob(context, "lwq-manifest.json", path, output));
  return output;
}

}  // namespace lwq
