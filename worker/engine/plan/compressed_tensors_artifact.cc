// compressed-tensors for the planner: the model's own units, which are what vLLM and SGLang fuse.
// docs/formats/compressed_tensors.md.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

// The tensor that holds a part.
absl::string_view SuffixOf(absl::string_view part) {
  if (part == "codes") return ".weight_packed";
  if (part == "scales") return ".weight_scale";
  if (part == "zeros") return ".weight_zero_point";
  return ".weight";
}

// Formats whose engines multiply in 8 bits: a byte a weight, and no shape beside it.
std::vector<TensorSpec> EightBitTensors(const LinearShape& linear, const WeightFormat& format,
                                        DType dtype) {
  const DType stored = format.fp8() != nullptr ? DType::kF8E4M3 : DType::kI8;
  return {
      {absl::StrCat(linear.module, ".weight"), stored, {linear.out_features, linear.in_features}},
      {absl::StrCat(linear.module, ".weight_scale"),
       GridFormat::ScaleDType(dtype),
       {linear.out_features, 1}}};
}

std::vector<TensorSpec> TensorsOf(const LinearShape& linear, const WeightFormat& format,
                                  DType dtype) {
  if (format.activation_rule() != ActivationRule::kNone) {
    return EightBitTensors(linear, format, dtype);
  }
  std::vector<TensorSpec> tensors;
  for (PartSpec& part : format.Parts(linear.out_features, linear.in_features, dtype)) {
    tensors.push_back(
        {absl::StrCat(linear.module, SuffixOf(part.name)), part.dtype, std::move(part.shape)});
  }
  if (format.grid() != nullptr) {
    tensors.insert(tensors.begin() + 2,
                   {absl::StrCat(linear.module, ".weight_shape"), DType::kI64, {2}});
  }
  return tensors;
}

ModelInventory UnitsOf(ModelInventory model) { return model; }

absl::Status Check(const ModelInventory&) { return absl::OkStatus(); }

int64_t FileBytes(const ModelInventory& model, const Plan& plan, int64_t max_shard_bytes) {
  return LayOutArtifact(model, plan, max_shard_bytes).weight_bytes;
}

}  // namespace

constinit const ArtifactFormatDef ArtifactFormatDefs::compressed_tensors = {
    .name = "compressed-tensors",
    .help = "a directory with safetensors: vLLM, SGLang, transformers",
    .units_of = &UnitsOf,
    .check = &Check,
    .linear_tensors = &TensorsOf,
    .weight_file_bytes = &FileBytes,
    .may_drop_layers = true,
};

}  // namespace lwq
