// The metadata of a GGUF file that comes from config.json: sizes, attention, rope; and the tensors
// that llama.cpp wants for rope.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

// F32, one number per pair of rotated rows.
struct GgufRopeTensor {
  std::string name;  // "rope_freqs.weight"
  std::vector<float> values;
};

struct GgufModel {
  const GgufFamilyDef* family = nullptr;
  GgufMetadata metadata;  // general.* and <architecture>.*
  std::vector<GgufRopeTensor> rope_tensors;
  int64_t num_heads = 0;  // what PermutedRow wants
  int64_t num_kv_heads = 0;
};

// `config_json` is the text of a config.json that passed CheckJson (io/json_file.h); `name` is for
// people, or empty. Errors: INVALID_ARGUMENT "CONFIG_INVALID" naming the field; UNIMPLEMENTED
// "ARCH_UNSUPPORTED" for a family, and "GGUF_UNSUPPORTED" for a setting, that llama.cpp's graph of
// the architecture does not have: a file is refused rather than made to run wrong.
absl::StatusOr<GgufModel> ReadGgufModel(absl::string_view config_json, absl::string_view name);

}  // namespace lwq
