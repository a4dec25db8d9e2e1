#include "worker/runner/task_memory.h"

#include <algorithm>
#include <utility>

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

WorkLimits LimitsFor(const TaskContext& context, absl::string_view kind, const DecoderSpec& spec,
                     const MemoryQuestion& question) {
  return ForecastUnderCeiling(SizesOf(spec), question, CeilingOf(context), kind).limits;
}

}  // namespace lwq
