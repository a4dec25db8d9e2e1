// The "quantization_config" of an artifact's config.json: which module is stored at which width.
// docs/formats/compressed_tensors.md; for GPTQ docs/formats/gptq.md.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/artifact/linear_coding.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// The dictionary as compact JSON, for the model's kind of artifact. Patterns are disjoint anchored patterns that match a linear under
// its own name and under the name that inference engines give to the fused one; every dense linear
// is said to be so. "" when every unit is dense.
std::string QuantizationConfigJson(const ModelInventory& model, const Plan& plan);

// The source's config.json with the dictionary put in (or, when every unit is dense, none); all
// other keys as they were, in their order. INVALID_ARGUMENT "CONFIG_INVALID".
absl::StatusOr<std::string> ArtifactConfigJson(absl::string_view source_config,
                                               const ModelInventory& model, const Plan& plan);

// How a model directory says that its linears are stored.
struct DeclaredQuantization {
  const LinearCoding* coding = nullptr;        // null: no linear is quantized
  std::vector<const WeightFormat*> formats = {};  // that some linear may be in
  bool fp8_blocks = false;  // linears may be 8-bit floats with scales (io/fp8_blocks.h)
};

// Accepts the quantization_config of a config.json that this build can read: compressed-tensors'
// integers without quantized activations (pack-quantized) and 8 bits by channel with dynamic ones
// by token (int-quantized, float-quantized), GPTQ's, or 8-bit floats in blocks, which are read as
// dense. INVALID_ARGUMENT "QUANT_METHOD_UNSUPPORTED" says what was found and what is read.
absl::StatusOr<DeclaredQuantization> ReadQuantizationConfig(absl::string_view config_json,
                                                            absl::string_view where);

// The same of a model directory: its config.json, or else quantize_config.json, where older GPTQ
// checkpoints say it.
absl::StatusOr<DeclaredQuantization> ReadDeclaredQuantization(const std::string& directory);

// "QUANT_METHOD_UNSUPPORTED" where a checkpoint has 8-bit floats of which its directory does not
// say that they are in blocks of 128 by 128: the shape of scales alone does not tell.
absl::Status CheckFp8Declared(const Checkpoint& checkpoint);

// A file beside config.json that repeats the dictionary, for engines that look there; no name where
// there is none.
struct SideConfig {
  std::string name;
  std::string content;
};
SideConfig SideConfigOf(const ModelInventory& model, const Plan& plan);

}  // namespace lwq
