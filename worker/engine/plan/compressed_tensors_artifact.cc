// compressed-tensors for the planner: the model's own units, which are what vLLM and SGLang fuse.
#include <utility>

#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

ModelInventory CtUnitsOf(ModelInventory model) { return model; }

absl::Status CtCheck(const ModelInventory&) { return absl::OkStatus(); }

int64_t CtFileBytes(const ModelInventory& model, const Plan& plan, int64_t max_shard_bytes) {
  return LayOutArtifact(model, plan, max_shard_bytes).weight_bytes;
}

}  // namespace

constinit const ArtifactFormatDef ArtifactFormatDefs::compressed_tensors = {
    .name = "compressed-tensors",
    .help = "a directory with safetensors: vLLM, SGLang, transformers",
    .units_of = &CtUnitsOf,
    .check = &CtCheck,
    .weight_file_bytes = &CtFileBytes,
    .may_drop_layers = true,
};

}  // namespace lwq
