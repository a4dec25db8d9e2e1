// Each term is what one task kind holds at once, at its widest layer. The largest task decides, but
// the terms are added: a bound that is a little high refuses a ceiling that would just have done,
// one that is low lets a job die half-way.
#include "worker/engine/plan/memory_model.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/failure.h"

namespace lwq {
namespace {

// Tokens that pass through a layer at a time.
constexpr int64_t kChunkTokens = 2048;
// Rows of logits computed at a time.
constexpr int64_t kLogitRows = 256;
// Widths quantized together from one factor: 2, 3, 4, 8.
constexpr int64_t kMaxWidths = 4;
// Smallest group of any profile: what scales and zeros weigh at most.
constexpr int64_t kSmallestGroup = 32;
// Libraries, code, RPC buffers and oneDNN's scratchpads: measured below this on the sample model.
constexpr int64_t kFixedBytes = int64_t{200} << 20;
constexpr int64_t kF32 = 4;

struct LayerSizes {
  int64_t weights = 0;
  int64_t gram_bytes = 0;  // F32 [K, K] of every distinct input of the layer
};

}  // namespace

MemoryForecast ForecastWorkerMemory(const ModelInventory& model, bool calibrated, bool bf16) {
  const int64_t prepared = bf16 ? 2 : kF32;
  std::map<int, LayerSizes> layers;
  int64_t widest_linear = 0, widest_input = 0, head_weights = 0;
  for (const AllocationUnit& unit : model.units) {
    if (unit.layer < 0) {
      head_weights = unit.num_weights();
    } else {
      layers[unit.layer].weights += unit.num_weights();
    }
    int64_t input = 0;
    for (const LinearShape& linear : unit.linears) {
      widest_linear = std::max(widest_linear, linear.num_weights());
      input = std::max(input, linear.in_features);
    }
    widest_input = std::max(widest_input, input);
    if (unit.layer >= 0) layers[unit.layer].gram_bytes += kF32 * input * input;
  }
  LayerSizes largest;
  for (const auto& [layer, sizes] : layers) {
    largest.weights = std::max(largest.weights, sizes.weights);
    largest.gram_bytes = std::max(largest.gram_bytes, sizes.gram_bytes);
  }
  if (head_weights == 0) head_weights = model.vocab_size * model.hidden_size;  // tied

  MemoryForecast f;
  // A linear being read or quantized: F32 as read, and per width a working copy, its codes and its
  // scales and zeros.
  const int64_t staging = widest_linear * kF32 + widest_linear * kMaxWidths * (kF32 + 1) +
                          widest_linear / kSmallestGroup * kMaxWidths * 2 * kF32;
  f.layer_bytes = largest.weights * prepared + staging;
  f.head_bytes = head_weights * prepared + 2 * kLogitRows * model.vocab_size * kF32;
  // Grams of a layer while calibrating, or one Gram, its permuted copy and factor while quantizing.
  if (calibrated) {
    const int64_t widest_gram = kF32 * widest_input * widest_input;
    f.hessian_bytes = std::max(largest.gram_bytes + widest_gram, 3 * widest_gram);
  }
  // Residual stream in and out, its norm, attention output; q, k, v before and after the rotation;
  // gate, up and their product.
  const int64_t qkv = int64_t{model.num_heads + 2 * model.num_kv_heads} * model.head_dim;
  const int64_t floats_per_token = 4 * model.hidden_size + 2 * qkv +
                                   int64_t{model.num_heads} * model.head_dim +
                                   3 * model.intermediate_size;
  f.activation_bytes = kChunkTokens * kF32 * floats_per_token;
  f.fixed_bytes = kFixedBytes;
  f.total_bytes =
      f.layer_bytes + f.head_bytes + f.hessian_bytes + f.activation_bytes + f.fixed_bytes;
  return f;
}

absl::Status CheckMemoryCeiling(const MemoryForecast& forecast, int64_t ceiling_bytes) {
  if (ceiling_bytes <= 0 || ceiling_bytes >= forecast.total_bytes) return absl::OkStatus();
  return Failure(
      absl::StatusCode::kResourceExhausted, "MEMORY_INFEASIBLE",
      absl::StrCat("the memory ceiling of ", ceiling_bytes, " bytes is below the ",
                   forecast.total_bytes, " bytes that this job needs (layer ", forecast.layer_bytes,
                   ", output head ", forecast.head_bytes, ", calibration statistics ",
                   forecast.hessian_bytes, ", activations ", forecast.activation_bytes, ", fixed ",
                   forecast.fixed_bytes, "); raise it to that"));
}

}  // namespace lwq
