// The levels of a type as the fits, the grid and refinement (block_fit.h) round to them.
#pragma once

#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/codebook.h"

namespace lwq {

class LevelSet {
 public:
  explicit LevelSet(const GgufBlockShape& shape)
      : shape_(shape),
        first_(shape.levels.front()),
        last_(shape.levels.back()),
        bias_(0.5f - first_),
        codebook_(shape.codebook == nullptr ? nullptr : &shape.codebook()) {}

  float first() const { return first_; }
  float last() const { return last_; }
  int size() const { return static_cast<int>(shape_.levels.size()); }
  // Null where every value may have any level.
  const Codebook* codebook() const { return codebook_; }

  // Without a codebook: the code of the level nearest to `v`, of two the upper one; any float is
  // fine, NaN gives 0.
  int NearestCode(float v) const {
    if (even()) return static_cast<int>(Clamped(v) + bias_);
    return shape_.nearest_codes[static_cast<size_t>((Clamped(v) - first_) * 2)];
  }

  // levels[i] = the level nearest to (values[i] + offset) * inverse_step, `count` of them. With a
  // codebook those of least error by `weights` [count], which is not read otherwise.
  void Round(const float* values, const float* weights, int count, float inverse_step, float offset,
             float* levels) const;

 private:
  bool even() const { return shape_.nearest_codes.empty(); }
  float Clamped(float v) const { return v > first_ ? (v < last_ ? v : last_) : first_; }

  const GgufBlockShape& shape_;
  float first_, last_;
  float bias_;  // of even levels: a cast then rounds
  const Codebook* codebook_;
};

// 1 / step, and 0 where that is no use: everything then rounds to the level nearest to zero.
inline float InverseStep(float step) {
  const float inverse = 1.0f / step;
  return inverse - inverse == 0 ? inverse : 0.0f;
}

// The nearest F16 that is finite.
inline uint16_t ToFiniteF16(float value) {
  const uint16_t half = FloatToF16(value);
  return (half & 0x7c00u) != 0x7c00u ? half : static_cast<uint16_t>((half & 0x8000u) | 0x7bffu);
}

}  // namespace lwq
