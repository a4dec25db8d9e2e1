// Tensors of a GGUF file that stretch its rotary embedding, as the numbers of config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/gguf/gguf_reader.h"

namespace lwq {

// A tensor of one dimension, of any type. NOT_FOUND "TENSOR_MISSING"; DATA_LOSS "GGUF_TENSOR" where
// it has another number of dimensions or is longer than a head may be.
absl::StatusOr<std::vector<float>> ReadGgufVector(const GgufFile& file, absl::string_view name);

struct Llama3Rope {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_positions = 8192;
};

// The parameters of Llama 3's scaling that give `divisors`, one for each frequency of a head, when
// there are any: all are computed again and compared. Of the several that compute the same the one
// with low_freq_factor 1, as in every published model.
std::optional<Llama3Rope> Llama3RopeOf(absl::Span<const float> divisors, double theta,
                                       int64_t head_dim);

}  // namespace lwq
