#include "worker/engine/gguf/level_set.h"

namespace lwq {

void LevelSet::Round(const float* values, int count, float inverse_step, float offset,
                     float* levels) const {
  if (even()) {
    for (int i = 0; i < count; ++i) {
      const float v = Clamped((values[i] + offset) * inverse_step);
      levels[i] = static_cast<float>(static_cast<int>(v + bias_)) + first_;
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    const int code = NearestCode((values[i] + offset) * inverse_step);
    levels[i] = shape_.levels[static_cast<size_t>(code)];
  }
}

}  // namespace lwq
