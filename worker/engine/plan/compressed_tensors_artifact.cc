// compressed-tensors for the planner: the model's own units, which are what vLLM and SGLang fuse.
#include <utility>

#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

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
    .weight_file_bytes = &FileBytes,
    .may_drop_layers = true,
};

}  // namespace lwq
