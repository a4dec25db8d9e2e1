// GPTQ for the planner: the units that vLLM and SGLang fuse, and per linear qweight, qzeros, scales and
// g_idx, the zero points and the order included where they say nothing. docs/formats/gptq.md.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {
namespace {

ModelInventory UnitsOf(ModelInventory model) { return model; }

absl::Status Check(const ModelInventory&) { return absl::OkStatus(); }

// Grids alone are on the menus of profiles that are stored so.
std::vector<TensorSpec> TensorsOf(const LinearShape& linear, const WeightFormat& format, DType) {
  const int bits = format.grid()->bits();
  const int64_t groups = format.grid()->NumGroups(linear.in_features);
  const int64_t outs = linear.out_features, ins = linear.in_features;
  return {{absl::StrCat(linear.module, ".qweight"), DType::kI32, {PackedWords(ins, bits), outs}},
          {absl::StrCat(linear.module, ".qzeros"), DType::kI32, {groups, PackedWords(outs, bits)}},
          {absl::StrCat(linear.module, ".scales"), DType::kF16, {groups, outs}},
          {absl::StrCat(linear.module, ".g_idx"), DType::kI32, {ins}}};
}

int64_t FileBytes(const ModelInventory& model, const Plan& plan, int64_t max_shard_bytes) {
  return LayOutArtifact(model, plan, max_shard_bytes).weight_bytes;
}

}  // namespace

constinit const ArtifactFormatDef ArtifactFormatDefs::gptq = {
    .name = "gptq",
    .help = "a directory with safetensors in GPTQ's layout: GPTQModel, vLLM, SGLang",
    .units_of = &UnitsOf,
    .check = &Check,
    .linear_tensors = &TensorsOf,
    .weight_file_bytes = &FileBytes,
    .may_drop_layers = true,
};

}  // namespace lwq
