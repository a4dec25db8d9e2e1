#include "server/dispatch/task_limits.h"

#include "server/dispatch/task_key.h"

namespace lwq {

void SetLimits(const MemoryForecast& forecast, v1::TaskSpec& spec) {
  const WorkLimits limits = forecast.LimitsOf(KindOf(spec));
  const int64_t chunk = limits.chunk_tokens == WorkLimits().chunk_tokens ? 0 : limits.chunk_tokens;
  const int64_t tile = limits.tile_weights == WorkLimits().tile_weights ? 0 : limits.tile_weights;
  if (spec.has_calibrate()) spec.mutable_calibrate()->set_chunk_tokens(chunk);
  if (spec.has_score()) spec.mutable_score()->set_chunk_tokens(chunk);
  if (spec.has_trial()) spec.mutable_trial()->set_chunk_tokens(chunk);
  if (spec.has_evaluate()) spec.mutable_evaluate()->set_chunk_tokens(chunk);
  if (spec.has_quantize()) spec.mutable_quantize()->set_tile_weights(tile);
}

}  // namespace lwq
