#include "worker/runner/task_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {

int64_t CeilingOf(const TaskContext& context) {
  const int64_t of_job = context.lease == nullptr ? 0 : context.lease->memory_bytes();
  if (of_job <= 0 || context.memory_bytes <= 0) return std::max(of_job, context.memory_bytes);
  return std::min(of_job, context.memory_bytes);
}

ModelInventory SizesOf(const DecoderSpec& spec) {
  ModelInventory sizes;
  sizes.num_layers = spec.num_layers();
  sizes.hidden_size = spec.hidden_size;
  sizes.intermediate_size = spec.intermediate_size;
  sizes.vocab_size = spec.vocab_size;
  sizes.num_heads = spec.num_heads;
  sizes.num_kv_heads = spec.num_kv_heads;
  sizes.head_dim = spec.head_dim;
  sizes.max_positions = spec.max_positions;
  for (int layer = 0; layer < spec.num_layers(); ++layer) {
    AllocationUnit experts;
    experts.place = Place::Layer(layer);
    for (const LinearSpec& linear : spec.layers[static_cast<size_t>(layer)].linears) {
      if (linear.expert.has_value()) {
        experts.linears.push_back(linear.shape);
        continue;
      }
      AllocationUnit& unit = sizes.units.emplace_back();
      unit.place = Place::Layer(layer);
      unit.linears.push_back(linear.shape);
    }
    if (!experts.linears.empty()) sizes.units.push_back(std::move(experts));
  }
  return sizes;
}

absl::StatusOr<int64_t> ChunkTokensOfEvaluation(const TaskContext& context, const DecoderSpec& spec,
                                                const MemoryQuestion& question) {
  const int64_t ceiling = CeilingOf(context);
  const MemoryForecast forecast = ForecastUnderCeiling(SizesOf(spec), question, ceiling);
  if (ceiling > 0 && forecast.evaluate_bytes > ceiling) {
    return Failure(reasons::kMemoryInfeasible,
                   absl::StrCat("the memory ceiling of ", ceiling, " bytes is below the ",
                                forecast.evaluate_bytes,
                                " bytes that evaluating this model needs; raise it to that"));
  }
  return forecast.LimitsOf("evaluate").chunk_tokens;
}

void UseSpareMemory(const TaskContext& context, absl::string_view kind, const ModelInventory& sizes,
                    const MemoryQuestion& question, Decoder& decoder) {
  if (!context.uses_spare) return;
  const int64_t ceiling = CeilingOf(context);
  WorkLimits limits;
  limits.chunk_tokens = decoder.chunk_tokens();
  const int64_t needed = ForecastWorkerMemory(sizes, question, limits).Of(kind) + ceiling / 8;
  if (needed >= ceiling) return;
  const int64_t spare = ceiling - needed;
  // Statistics and trials meet each layer once: kept weights would never be read again.
  const int64_t weights = kind == "calibrate" || kind == "trial" ? 0 : spare / 2;
  decoder.set_spare_bytes(spare - weights, weights);
}

namespace {

// Task messages have the same fields, and no base.
template <typename Task>
bool TakeFewerTokens(absl::string_view kind, Task& task) {
  WorkLimits limits;
  if (task.chunk_tokens() > 0) limits.chunk_tokens = task.chunk_tokens();
  if (!TakeLess(kind, limits)) return false;
  task.set_chunk_tokens(limits.chunk_tokens);
  return true;
}

}  // namespace

bool TakeLess(v1::TaskSpec& spec) {
  if (spec.has_calibrate()) return TakeFewerTokens("calibrate", *spec.mutable_calibrate());
  if (spec.has_score()) return TakeFewerTokens("score", *spec.mutable_score());
  if (spec.has_trial()) return TakeFewerTokens("trial", *spec.mutable_trial());
  if (spec.has_evaluate()) return TakeFewerTokens("evaluate", *spec.mutable_evaluate());
  if (!spec.has_quantize()) return false;
  WorkLimits limits;
  if (spec.quantize().tile_weights() > 0) limits.tile_weights = spec.quantize().tile_weights();
  if (!TakeLess("quantize", limits)) return false;
  spec.mutable_quantize()->set_tile_weights(limits.tile_weights);
  return true;
}

absl::StatusOr<std::unique_ptr<Decoder>> OpenDecoder(const TaskContext& context, DecoderSpec spec,
                                                     const WeightSource* weights,
                                                     ComputeType compute, int64_t chunk_tokens) {
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(std::move(spec), weights, context.device, compute));
  if (chunk_tokens > 0) decoder->set_chunk_tokens(chunk_tokens);
  decoder->set_scratch_directory(context.blobs->ScratchDirectory());
  return decoder;
}

}  // namespace lwq
