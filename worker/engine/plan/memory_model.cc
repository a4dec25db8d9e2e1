// Every part is what the code named beside it holds; where one is changed, so is the other. Blocks
// that are freed are kept for the next of their size, but never more than was once in use
// (tensor/host_memory.h), so a task's peak is what it uses at once. Prepared weights count as F32
// whatever is computed in: a CPU without BF16 instructions keeps them so.
#include "worker/engine/plan/memory_model.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

// A worker with its threads and connections; and with the kernels that oneDNN compiles and small
// buffers besides.
constexpr int64_t kIdleBytes = int64_t{48} << 20;
constexpr int64_t kFixedBytes = int64_t{72} << 20;
constexpr int64_t kF32 = 4;
// model/head_pass.cc: a part of the head, its prepared form for two models, logits of both.
constexpr int64_t kHeadTile = int64_t{1} << 24;
constexpr int64_t kHeadRows = 1024;
// artifact/load_stored.cc: codes on their way to weights, packed and unpacked.
constexpr int64_t kCodesAtOnce = int64_t{2} << 20;
// Experts of a layer that are loaded together (model/sparse_run.h).
constexpr int64_t kExpertsAtOnce = 4;
// score/unit_costs.cc: rows of a linear, their replacement, the error and its products.
constexpr int64_t kScoreTile = int64_t{1} << 24;
// Calibration's products of second moments take so many tokens at once.
constexpr int64_t kGramTokens = 1024;
// quant/gptq.cc and quant/refinement.cc: columns of their blocks in work.
constexpr int64_t kWorkColumns = 1024;
// quant/block_rounding.cc: rows of a slab; and of it in the host while quant/block_descent.cc
// sweeps over it, the residual and the errors of so many columns. On the device it has a copy of
// the tile, and both within the columns in work.
constexpr int64_t kSlabRows = 2048;
constexpr int64_t kDescentColumns = 256;
// The smallest that tasks work on.
constexpr int64_t kMinChunkTokens = 256;
constexpr int64_t kMinTileWeights = int64_t{1} << 20;

struct ModelSizes {
  int64_t layer = 0;   // weights of the largest layer
  int64_t unit = 0;    // of the largest unit of a layer
  int64_t linear = 0;  // of a layer's widest linear
  int64_t input = 0;   // widest input of a layer's linears
  int64_t inner = 0;   // widest input of what goes down from an MLP, or from a shared expert
  int64_t head = 0;    // of the head, where it is quantized, or of the embedding
  bool fused = false;  // one linear gives gates and what is gated side by side
  // Of linears in the formats that they are made in: of a layer, of the head or the embedding.
  int64_t layer_stored = 0, head_stored = 0;
  int64_t grids = 0;         // the most grids that one unit is made on
  bool blocks = false;       // some are made in GGUF blocks
  bool experts = false;      // some layer has them
  int64_t expert_grams = 0;  // F32 second moments of what the experts read that are held
};

// How many of a unit's linears are held at a time: of experts' few, the others all.
int64_t HeldLinears(const AllocationUnit& unit) {
  const int64_t all = static_cast<int64_t>(unit.linears.size());
  if (!unit.of_experts()) return all;
  const int64_t experts = std::count_if(
      unit.linears.begin(), unit.linears.end(),
      [&](const LinearShape& linear) { return linear.name == unit.linears.front().name; });
  return all / experts * std::min(experts, kExpertsAtOnce);
}

// Of inputs of an expert's own, F32 [K, K] each.
int64_t ExpertGrams(const AllocationUnit& unit) {
  if (!unit.of_experts()) return 0;
  int64_t bytes = 0;
  for (int64_t i = 0; i < HeldLinears(unit); ++i) {
    const int64_t input = unit.linears[static_cast<size_t>(i)].in_features;
    bytes += kF32 * input * input;
  }
  return bytes;
}

int64_t StoredBytes(const AllocationUnit& unit, const UnitMenu& menu, DType weight_dtype) {
  int64_t bytes = 0;
  if (unit.of_experts()) return bytes;  // they wait in files
  for (const LinearShape& linear : unit.linears) {
    for (const WeightFormat* format : menu.formats) {
      if (format->dense()) continue;
      bytes += format->PartBytes(linear.out_features, linear.in_features, weight_dtype);
    }
  }
  return bytes;
}

// `menu` null: nothing is quantized.
void AddUnit(const ModelInventory& model, const AllocationUnit& unit, const UnitMenu* menu,
             std::pair<int64_t, int64_t>& layer, ModelSizes& all) {
  int64_t stored = 0;
  if (menu != nullptr) {
    const auto on_grid = [](const WeightFormat* format) { return format->grid() != nullptr; };
    const auto in_blocks = [](const WeightFormat* format) { return format->gguf() != nullptr; };
    const auto& formats = menu->formats;
    stored = StoredBytes(unit, *menu, model.weight_dtype);
    all.grids =
        std::max<int64_t>(all.grids, std::count_if(formats.begin(), formats.end(), on_grid));
    all.blocks = all.blocks || std::any_of(formats.begin(), formats.end(), in_blocks);
  }
  if (!unit.place.in_layer()) {
    all.head = std::max(all.head, unit.num_weights());
    all.head_stored = std::max(all.head_stored, stored);
    return;
  }
  const int64_t held =
      unit.num_weights() * HeldLinears(unit) / static_cast<int64_t>(unit.linears.size());
  layer.first += held;
  layer.second += stored;
  all.layer = std::max(all.layer, layer.first);
  all.layer_stored = std::max(all.layer_stored, layer.second);
  all.unit = std::max(all.unit, held);
  all.experts = all.experts || unit.of_experts();
  all.expert_grams = std::max(all.expert_grams, ExpertGrams(unit));
  for (const LinearShape& linear : unit.linears) {
    all.linear = std::max(all.linear, linear.num_weights());
    all.input = std::max(all.input, linear.in_features);
    if (linear.role == LinearRole::kDown && !unit.of_experts()) {
      all.inner = std::max(all.inner, linear.in_features);
    }
    all.fused = all.fused || linear.out_features == 2 * model.intermediate_size;
  }
}

ModelSizes SizesOf(const ModelInventory& model, const Menu* menu) {
  ModelSizes all;
  all.inner = model.intermediate_size;
  std::map<int, std::pair<int64_t, int64_t>> layers;  // weights, stored bytes
  for (size_t u = 0; u < model.units.size(); ++u) {
    const AllocationUnit& unit = model.units[u];
    AddUnit(model, unit, menu == nullptr ? nullptr : &menu->units[u], layers[unit.place.layer],
            all);
  }
  return all;
}

// Second moments of all inputs of a layer: of attention, its output, the MLP and what goes down.
int64_t GramBytes(const ModelInventory& model, const ModelSizes& sizes) {
  const int64_t queries = int64_t{model.num_heads} * model.head_dim;
  int64_t elements = 0;
  for (const int64_t n : {model.hidden_size, queries, model.hidden_size, sizes.inner}) {
    elements += n * n;
  }
  return elements * kF32;
}

// model/decoder.cc's workspace: the residual stream and its norm; queries, keys, values and what
// attention answers, or in the same place the inputs of the down projection. Besides it a product's
// inputs, where they are rounded or do not lie dense.
int64_t ActivationBytes(const ModelInventory& model, const ModelSizes& sizes, bool copied,
                        int64_t tokens) {
  const int64_t queries = int64_t{model.num_heads} * model.head_dim;
  const int64_t keys = int64_t{model.num_kv_heads} * model.head_dim;
  const int64_t gates = sizes.inner * (sizes.fused ? 2 : 1);
  const int64_t inner = std::max(2 * (queries + keys), gates);
  const int64_t input = copied || sizes.fused ? sizes.input : 0;
  // What an expert reads and answers, and the sum.
  const int64_t experts = sizes.experts ? 3 * model.hidden_size : 0;
  return tokens * kF32 * (2 * model.hidden_size + inner + input + experts);
}

// Keys and values of a sequence that passes in parts, and what one thread's attention gathers of
// them; forecasts know of no more than so many threads.
int64_t HistoryBytes(const ModelInventory& model, int64_t tokens) {
  constexpr int64_t kThreads = 16;
  constexpr int64_t kScoreRows = 32;
  const int64_t keys = int64_t{model.num_kv_heads} * model.head_dim;
  return tokens * kF32 * (2 * keys + kThreads * (2 * int64_t{model.head_dim} + kScoreRows));
}

// quant/hessian.cc: the second moments, the factor, and both as products read them.
struct Statistics {
  int64_t making = 0, kept = 0;
};
Statistics StatisticsOf(int64_t input, bool refinement) {
  const int64_t square = kF32 * input * input;
  return {refinement ? 3 * square : 2 * square, square / 2 * (refinement ? 5 : 3)};
}

// What quantizing holds of a linear, tile by tile. On the device the tile as read, its working
// copies (five while it is refined) and codes; in the host its codes and what they are packed into,
// in every format.
struct Tile {
  int64_t on_device = 0, in_host = 0;
};
Tile TileOf(int64_t rows, int64_t cols, const ModelSizes& sizes, bool refinement) {
  const int64_t copies = refinement ? 5 : 2;
  const int64_t weights = rows * cols;
  Tile tile{weights * (kF32 * copies + 2) + rows * kWorkColumns * kF32, weights * 2 * sizes.grids};
  // Blocks are made a slab and a format at a time, in the host: its weights and parts.
  if (sizes.blocks) {
    const int64_t slab = std::min(rows, kSlabRows);
    // Either while sweeping, or of the feedback of types with codebooks.
    const int64_t descent =
        std::max(refinement ? slab * kDescentColumns * 2 * kF32 : 0, kDescentColumns * cols * kF32);
    tile.in_host = std::max(tile.in_host, weights + slab * cols * 10 + descent);
  }
  return tile;
}

int64_t QuantizeBytes(const ModelInventory& model, const ModelSizes& sizes,
                      const MemoryQuestion& question, const WorkLimits& limits) {
  const auto one = [&](int64_t largest, int64_t input, int64_t stored) {
    const int64_t all_rows = std::max<int64_t>(1, largest / std::max<int64_t>(input, 1));
    const int64_t rows = std::clamp<int64_t>(limits.tile_weights / std::max<int64_t>(input, 1), 32,
                                             std::max<int64_t>(32, all_rows));
    const Tile tile = TileOf(rows, input, sizes, question.refinement);
    // Results wait in many blocks of malloc's, which loses a part to what is between them.
    const int64_t in_host = stored + stored / 4 + tile.in_host;
    if (!question.factors) return in_host + tile.on_device;
    const Statistics statistics = StatisticsOf(input, question.refinement);
    return in_host + std::max(statistics.making, statistics.kept + tile.on_device);
  };
  const int64_t layer = one(sizes.linear, sizes.input, sizes.layer_stored);
  return std::max(
      layer, sizes.head_stored > 0 ? one(sizes.head, model.hidden_size, sizes.head_stored) : 0);
}

struct KindBytes {
  absl::string_view name;
  int64_t MemoryForecast::*bytes;
  // Which of its limits a ceiling makes smaller; null: none.
  int64_t WorkLimits::*limit;
  int64_t least;
};
constexpr KindBytes kKinds[] = {
    {"calibrate", &MemoryForecast::calibrate_bytes, &WorkLimits::chunk_tokens, kMinChunkTokens},
    {"score", &MemoryForecast::score_bytes, &WorkLimits::chunk_tokens, kMinChunkTokens},
    {"quantize", &MemoryForecast::quantize_bytes, &WorkLimits::tile_weights, kMinTileWeights},
    {"trial", &MemoryForecast::trial_bytes, &WorkLimits::chunk_tokens, kMinChunkTokens},
    {"evaluate", &MemoryForecast::evaluate_bytes, &WorkLimits::chunk_tokens, kMinChunkTokens},
    {"verify", &MemoryForecast::verify_bytes, nullptr, 0},
    {"preflight", &MemoryForecast::preflight_bytes, nullptr, 0},
};

bool TakeLess(const KindBytes& kind, WorkLimits& limits) {
  if (kind.limit == nullptr || limits.*kind.limit <= kind.least) return false;
  limits.*kind.limit = std::max(kind.least, limits.*kind.limit / 2);
  return true;
}

}  // namespace

bool TakeLess(absl::string_view kind, WorkLimits& limits) {
  for (const KindBytes& known : kKinds) {
    if (known.name == kind) return TakeLess(known, limits);
  }
  return false;
}

int64_t LongestWindow(int64_t text_tokens, int64_t max_positions) {
  // Divided, as what is wanted may be near the largest number there is.
  const bool all = text_tokens < 0 || text_tokens > max_positions / kRollingBytesPerToken;
  return all ? max_positions : text_tokens * kRollingBytesPerToken;
}

int64_t MemoryForecast::Of(absl::string_view kind) const {
  for (const KindBytes& known : kKinds) {
    if (known.name == kind) return this->*known.bytes;
  }
  return idle_bytes;
}

WorkLimits MemoryForecast::LimitsOf(absl::string_view kind) const {
  const auto found = limits.find(kind);
  return found == limits.end() ? WorkLimits() : found->second;
}

MemoryForecast ForecastWorkerMemory(const ModelInventory& model, const MemoryQuestion& question,
                                    const WorkLimits& limits) {
  const ModelSizes sizes = SizesOf(model, question.menu);
  const int64_t tokens = limits.chunk_tokens;
  MemoryForecast f;
  f.fixed_bytes = kFixedBytes;
  f.idle_bytes = kIdleBytes;
  f.layer_bytes = (sizes.layer + sizes.linear) * kF32;
  f.activation_bytes = ActivationBytes(model, sizes, question.bf16, tokens);
  // One F32 part and two prepared ones, two of logits; a block of normed states.
  f.head_bytes = 5 * kHeadTile + kHeadRows * model.hidden_size * kF32;
  const int64_t decoded = kCodesAtOnce;
  const int64_t forward =
      f.fixed_bytes + f.activation_bytes + std::max(f.layer_bytes + decoded, f.head_bytes);
  f.trial_bytes = f.evaluate_bytes = forward;
  if (question.longest_window > tokens) {
    f.evaluate_bytes += HistoryBytes(model, question.longest_window);
  }
  f.verify_bytes = f.fixed_bytes + std::max(f.layer_bytes + decoded, f.head_bytes);
  // The layer as it is, beside the unit that is exchanged.
  f.score_bytes = f.fixed_bytes + f.activation_bytes +
                  std::max(f.layer_bytes + decoded + sizes.unit * kF32, f.head_bytes);
  if (question.scores_moments) {  // score/activation_error.cc
    f.score_bytes = std::max(f.score_bytes,
                             f.fixed_bytes + 3 * kF32 * sizes.input * sizes.input + 4 * kScoreTile);
  }
  if (question.runs_source) {
    f.calibrate_bytes = f.fixed_bytes + f.layer_bytes + f.activation_bytes;
    if (question.moments) {
      f.calibrate_bytes += GramBytes(model, sizes) + sizes.expert_grams +
                           2 * std::min(tokens, kGramTokens) * sizes.input * kF32;
    }
  }
  f.quantize_bytes = f.fixed_bytes + QuantizeBytes(model, sizes, question, limits);
  f.preflight_bytes =
      f.fixed_bytes + f.layer_bytes + ActivationBytes(model, sizes, question.bf16, kMinChunkTokens);
  if (question.factors) {
    f.statistics_bytes = StatisticsOf(sizes.input, question.refinement).making;
    f.preflight_bytes = std::max(f.preflight_bytes, f.fixed_bytes + f.statistics_bytes);
  }
  for (const KindBytes& kind : kKinds) f.total_bytes = std::max(f.total_bytes, f.*kind.bytes);
  return f;
}

MemoryForecast ForecastUnderCeiling(const ModelInventory& model, const MemoryQuestion& question,
                                    int64_t ceiling_bytes) {
  MemoryForecast all = ForecastWorkerMemory(model, question);
  if (ceiling_bytes <= 0) return all;
  all.total_bytes = 0;
  for (const KindBytes& kind : kKinds) {
    WorkLimits limits;
    while (all.*kind.bytes > ceiling_bytes && TakeLess(kind, limits)) {
      const MemoryForecast smaller = ForecastWorkerMemory(model, question, limits);
      all.*kind.bytes = smaller.*kind.bytes;
      all.activation_bytes = std::min(all.activation_bytes, smaller.activation_bytes);
      all.limits[std::string(kind.name)] = limits;
    }
    all.total_bytes = std::max(all.total_bytes, all.*kind.bytes);
  }
  return all;
}

absl::Status CheckMemoryCeiling(const MemoryForecast& forecast, int64_t ceiling_bytes) {
  if (ceiling_bytes <= 0 || ceiling_bytes >= forecast.total_bytes) return absl::OkStatus();
  return Failure(
      reasons::kMemoryInfeasible,
      absl::StrCat("the memory ceiling of ", ceiling_bytes, " bytes is below the ",
                   forecast.total_bytes, " bytes that this job needs (layer ", forecast.layer_bytes,
                   ", output head ", forecast.head_bytes, ", calibration statistics ",
                   forecast.statistics_bytes, ", activations ", forecast.activation_bytes,
                   ", fixed ", forecast.fixed_bytes, "; not all at once; calibrating ",
                   forecast.calibrate_bytes, ", scoring ", forecast.score_bytes, ", quantizing ",
                   forecast.quantize_bytes, "); raise it to that"));
}

}  // namespace lwq
