// Tasks hold different things: calibration a prepared layer and the Gram matrices of its inputs,
// quantization one linear in several copies and the packed layer, scoring a layer, the head and the
// hidden states of candidates. The forecast is the largest of the three, each taken at the widest
// layer with everything it may hold at once.
#include "worker/engine/plan/memory_model.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/failure.h"

namespace lwq {
namespace {

// Tokens that pass through a layer at a time.
constexpr int64_t kChunkTokens = 2048;
// Logits held at once, for the source and for a candidate: rows, and a bound for large
// vocabularies.
constexpr int64_t kLogitRows = 1024;
constexpr int64_t kMaxLogits = int64_t{1} << 24;
// Hidden states of the candidates of one scoring task.
constexpr int64_t kCandidateStateBytes = int64_t{192} << 20;
// Smallest group of any profile: what scales and zeros weigh at most.
constexpr int64_t kSmallestGroup = 32;
// Of blocks in work: 2,048 rows in the host and on the device, with their parts.
constexpr int64_t kSlabBytesPerInput = 2048 * 12;
// Allowance for libraries, code, RPC buffers and oneDNN's scratchpads; preflight measures.
constexpr int64_t kFixedBytes = int64_t{200} << 20;
// Experts of a layer that are loaded together (model/sparse_run.h).
constexpr int64_t kExpertsAtOnce = 4;
constexpr int64_t kF32 = 4;

struct LayerSizes {
  int64_t weights = 0;
  int64_t gram_bytes = 0;    // F32 [K, K] of every distinct input of the layer
  int64_t stored_bytes = 0;  // of its linears in all formats
};

int64_t StoredBytes(const AllocationUnit& unit, absl::Span<const WeightFormat* const> formats,
                    DType weight_dtype) {
  int64_t bytes = 0;
  if (unit.of_experts()) return bytes;  // they wait in files
  for (const LinearShape& linear : unit.linears) {
    for (const WeightFormat* format : formats) {
      if (format->dense() || !format->Accepts(linear.out_features, linear.in_features).ok())
        continue;
      bytes += format->PartBytes(linear.out_features, linear.in_features, weight_dtype);
    }
  }
  return bytes;
}

// How many of a unit's linears are held at a time: of experts' few, the others all.
int64_t HeldLinears(const AllocationUnit& unit) {
  const int64_t all = static_cast<int64_t>(unit.linears.size());
  if (!unit.of_experts()) return all;
  const int64_t experts = std::count_if(
      unit.linears.begin(), unit.linears.end(),
      [&](const LinearShape& linear) { return linear.name == unit.linears.front().name; });
  return all / experts * std::min(experts, kExpertsAtOnce);
}

// Of what a unit's linears read, F32 [K, K] each: experts have inputs of their own, and one that
// all tokens make.
int64_t GramBytes(const AllocationUnit& unit, int64_t widest_input) {
  const int64_t widest = kF32 * widest_input * widest_input;
  if (!unit.of_experts()) return widest;
  int64_t bytes = widest;
  for (int64_t i = 0; i < HeldLinears(unit); ++i) {
    const int64_t input = unit.linears[static_cast<size_t>(i)].in_features;
    bytes += kF32 * input * input;
  }
  return bytes;
}

struct ModelSizes {
  LayerSizes largest;  // each of the layer that has most of it
  int64_t widest_linear = 0, widest_input = 0;
  int64_t widest_gates = 0;  // of a linear that gives gates and what is gated side by side
  int64_t head_weights = 0;
  bool experts = false;  // some layer has them
  int64_t table_bytes = 0;  // of the embedding in all formats, where it is a unit
};

ModelSizes SizesOf(const ModelInventory& model, absl::Span<const WeightFormat* const> formats) {
  ModelSizes all;
  std::map<int, LayerSizes> layers;
  for (const AllocationUnit& unit : model.units) {
    if (unit.place.in_layer()) {
      layers[unit.place.layer].weights +=
          unit.num_weights() * HeldLinears(unit) / static_cast<int64_t>(unit.linears.size());
      layers[unit.place.layer].stored_bytes += StoredBytes(unit, formats, model.weight_dtype);
    } else {
      all.head_weights = unit.num_weights();
      if (unit.place == Place::Embedding()) {
        all.table_bytes = StoredBytes(unit, formats, model.weight_dtype);
      }
    }
    int64_t input = 0;
    for (const LinearShape& linear : unit.linears) {
      all.widest_linear = std::max(all.widest_linear, linear.num_weights());
      input = std::max(input, linear.in_features);
      if (unit.place.in_layer() && unit.linears.size() == 1 &&
          linear.out_features == 2 * model.intermediate_size) {
        all.widest_gates = linear.out_features;
      }
    }
    all.widest_input = std::max(all.widest_input, input);
    all.experts |= unit.of_experts();
    if (unit.place.in_layer()) layers[unit.place.layer].gram_bytes += GramBytes(unit, input);
  }
  for (const auto& [layer, sizes] : layers) {
    all.largest.weights = std::max(all.largest.weights, sizes.weights);
    all.largest.gram_bytes = std::max(all.largest.gram_bytes, sizes.gram_bytes);
    all.largest.stored_bytes = std::max(all.largest.stored_bytes, sizes.stored_bytes);
  }
  if (all.head_weights == 0) all.head_weights = model.vocab_size * model.hidden_size;  // tied
  return all;
}

}  // namespace

MemoryForecast ForecastWorkerMemory(const ModelInventory& model,
                                    absl::Span<const WeightFormat* const> formats, bool calibrated,
                                    bool bf16) {
  const int64_t prepared = bf16 ? 2 : kF32;
  const ModelSizes sizes = SizesOf(model, formats);

  MemoryForecast f;
  // A linear is read as F32 before it is prepared; so is the head.
  f.layer_bytes = sizes.largest.weights * prepared + sizes.widest_linear * kF32;
  const int64_t logit_rows =
      std::clamp<int64_t>(kMaxLogits / std::max<int64_t>(model.vocab_size, 1), 1, kLogitRows);
  // Where a quantized head is compared with the source's, both are held; of the logits of both,
  // evaluations also keep a copy in the host.
  f.head_bytes =
      sizes.head_weights * (2 * prepared + kF32) + 4 * logit_rows * model.vocab_size * kF32;
  // One Gram matrix that becomes the factor; its copy in the host, and after that half the factor
  // as GPTQ multiplies with it; and H for the refinement, which is as large where it is not
  // rounded.
  const int64_t widest_gram = kF32 * sizes.widest_input * sizes.widest_input;
  if (calibrated) f.hessian_bytes = std::max(sizes.largest.gram_bytes, 3 * widest_gram);
  // The residual stream and its norm; q, k, v and what attention answers, or in the same place the
  // inputs of the down projection; a product's inputs, rounded or dense; for second moments the
  // inputs once more, turned and packed.
  const int64_t queries = int64_t{model.num_heads} * model.head_dim;
  const int64_t keys = int64_t{model.num_kv_heads} * model.head_dim;
  const int64_t inner =
      std::max({2 * queries + 2 * keys, model.intermediate_size, sizes.widest_gates});
  f.activation_bytes =
      kChunkTokens * (kF32 * (2 * model.hidden_size + inner) + prepared * sizes.widest_input);
  if (calibrated) f.activation_bytes += kChunkTokens * kF32 * sizes.widest_input;
  // What an expert reads and answers, and the sum.
  if (sizes.experts) f.activation_bytes += kChunkTokens * kF32 * 3 * model.hidden_size;
  f.fixed_bytes = kFixedBytes;

  // The linear as read and on the device; per format a working copy, its codes, scales and zeros;
  // and the layer's stored linears in every format.
  const int64_t scales = sizes.widest_linear / kSmallestGroup * 2 * kF32;
  // Blocks are made a slab of rows and a format at a time.
  const int64_t num_grids = std::count_if(
      formats.begin(), formats.end(), [](const WeightFormat* f) { return f->gguf() == nullptr; });
  int64_t linear_copies =
      sizes.widest_linear * 2 * kF32 + num_grids * (sizes.widest_linear * (kF32 + 1) + scales);
  if (num_grids < static_cast<int64_t>(formats.size())) {
    linear_copies += kSlabBytesPerInput * sizes.widest_input;
  }
  const int64_t calibrate = f.layer_bytes + f.hessian_bytes + f.activation_bytes;
  const int64_t quantize =
      linear_copies + std::max(sizes.largest.stored_bytes, sizes.table_bytes) + f.hessian_bytes;
  const int64_t score = f.layer_bytes + f.head_bytes + kCandidateStateBytes + f.activation_bytes;
  f.total_bytes = f.fixed_bytes + std::max({calibrate, quantize, score});
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
                   forecast.fixed_bytes, "; not all at once); raise it to that"));
}

}  // namespace lwq
