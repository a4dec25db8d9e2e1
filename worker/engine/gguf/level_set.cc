#include "worker/engine/gguf/level_set.h"

namespace lwq {

void LevelSet::Round(const float* values, const float* weights, int count, float inverse_step,
                     float offset, float* levels) const {
  if (codebook_ != nullptr) {
    const int size = codebook_->cell_size();
    for (int begin = 0; begin < count; begin += size) {
      float v[Codebook::kMaxCell];
      uint8_t codes[Codebook::kMaxCell];
      for (int i = 0; i < size; ++i) v[i] = values[begin + i] * inverse_step;
      codebook_->Round(v, weights + begin, codes);
      for (int i = 0; i < size; ++i) levels[begin + i] = shape_.levels[codes[i]];
    }
    return;
  }
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
