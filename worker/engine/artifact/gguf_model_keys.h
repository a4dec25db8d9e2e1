// The metadata of a GGUF file that says how to compute the model: sizes, attention, rope; and the
// tensors that llama.cpp wants for rope. All of it comes from the DecoderSpec that lwq itself
// computes with, so that the file cannot mean another model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_value.h"
#include "worker/engine/model/decoder_spec.h"

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

// `name` is for people, or empty. UNIMPLEMENTED "ARCH_UNSUPPORTED" for a family, and
// "GGUF_UNSUPPORTED" for what llama.cpp's graph of the architecture does not compute: a file is
// refused rather than made to run wrong.
absl::StatusOr<GgufModel> MakeGgufModel(const DecoderSpec& spec, absl::string_view name);

}  // namespace lwq
