// GGUF for the planner: llama.cpp fuses nothing, so every linear and the embedding are units of
// their own, and the experts of a layer that lie in one tensor; and of a file's bytes only those of
// the units' tensors depend on the plan, because what the header says of a tensor takes the same
// space for every type.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "worker/engine/gguf/gguf_layout.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

// "layers.3.self_attn.q_proj", "embed_tokens", "lm_head": without the model's own name.
std::string UnitName(absl::string_view module) {
  return std::string(module.substr(module.find('.') + 1));
}

AllocationUnit UnitOf(const LinearShape& linear, Place place) {
  return {UnitName(linear.module), place, {linear}, linear.name};
}

// "layers.3.mlp.experts.up_proj" and its like, in the order in which the first expert has them.
void AddStacks(const AllocationUnit& experts, std::vector<AllocationUnit>& units) {
  const size_t first = units.size();
  for (const LinearShape& linear : experts.linears) {
    size_t at = first;
    while (at < units.size() && units[at].kind != linear.name) ++at;
    if (at == units.size()) {
      const std::string layer(absl::StripSuffix(experts.name, experts.kind));
      units.push_back({absl::StrCat(layer, linear.name), experts.place, {}, linear.name});
    }
    units[at].linears.push_back(linear);
  }
}

bool IsEmbeddingTable(const DenseTensor& tensor) {
  return tensor.place == Place::Embedding() && tensor.shape.size() == 2 && tensor.bias_of.empty();
}

ModelInventory UnitsOf(ModelInventory model) {
  std::vector<AllocationUnit> units;
  for (const DenseTensor& tensor : model.dense) {
    if (!IsEmbeddingTable(tensor)) continue;
    const std::string module(absl::StripSuffix(tensor.name, ".weight"));
    LinearShape table = {module, tensor.shape[0], tensor.shape[1], UnitName(module),
                         LinearRole::kEmbedding};
    if (tensor.dtype != model.weight_dtype) table.own_dtype = tensor.dtype;
    units.push_back(UnitOf(table, tensor.place));
  }
  model.dense.erase(std::remove_if(model.dense.begin(), model.dense.end(), &IsEmbeddingTable),
                    model.dense.end());
  for (const AllocationUnit& unit : model.units) {
    if (unit.of_experts()) {
      AddStacks(unit, units);
      continue;
    }
    for (const LinearShape& linear : unit.linears) units.push_back(UnitOf(linear, unit.place));
  }
  model.units = std::move(units);
  return model;
}

// One tensor of blocks; its place and its name in the file are the writer's matter.
std::vector<TensorSpec> TensorsOf(const LinearShape& linear, const WeightFormat& format,
                                  DType dtype) {
  std::vector<TensorSpec> tensors;
  for (PartSpec& part : format.Parts(linear.out_features, linear.in_features, dtype)) {
    tensors.push_back({absl::StrCat(linear.module, ".weight"), part.dtype, std::move(part.shape)});
  }
  return tensors;
}

absl::Status Check(const ModelInventory& model) {
  if (!model.gguf_refusal.empty()) {
    return Failure(reasons::kGgufUnsupported,
                   absl::StrCat("no GGUF file can be made of this model: ", model.gguf_refusal));
  }
  if (model.gguf_other_bytes > 0) return absl::OkStatus();
  return PreconditionFailure(reasons::kModelInvalid.name,
                             "the model was registered by an earlier version of lwq, which did not "
                             "look at what a GGUF file of it needs; register it again");
}

int64_t FileBytes(const ModelInventory& model, const Plan& plan, int64_t) {
  int64_t bytes = model.gguf_other_bytes;
  for (size_t u = 0; u < plan.size(); ++u) {
    bytes += PadTo(UnitPayloadBytes(model, model.units[u], plan[u]), kDefaultGgufAlignment);
  }
  return bytes;
}

}  // namespace

constinit const ArtifactFormatDef ArtifactFormatDefs::gguf = {
    .name = "gguf",
    .help = "one file: llama.cpp",
    .units_of = &UnitsOf,
    .check = &Check,
    .linear_tensors = &TensorsOf,
    .weight_file_bytes = &FileBytes,
};

}  // namespace lwq
