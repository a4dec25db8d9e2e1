// The fields of config.json that the Llama-shaped families share.
#pragma once

#include "absl/status/statusor.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {

// Sizes, norms, rotary embedding (in the spellings of transformers 4 and 5) and token ids. Leaves
// biases and the sliding window off.
absl::StatusOr<DecoderSpec> ReadLlamaShapedConfig(const ConfigReader& config);

}  // namespace lwq
