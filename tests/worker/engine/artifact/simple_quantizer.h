// Min-max codes with snapped scales, for tests of what is stored; not a method.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>

#include "worker/engine/quant/quantizer.h"
#include "worker/engine/tensor/half.h"

namespace lwq::testing {

inline QuantizedLinear QuantizeSimply(ConstMatrixView weight, const GridSpec& grid) {
  QuantizedLinear linear;
  linear.out_features = weight.rows;
  linear.in_features = weight.cols;
  linear.grid = grid;
  const int64_t group = grid.GroupSizeFor(weight.cols);
  linear.scales = Matrix(weight.rows, weight.cols / group);
  if (!grid.symmetric) linear.zeros = Matrix(weight.rows, weight.cols / group);
  linear.codes.resize(static_cast<size_t>(weight.rows * weight.cols));
  const float top = static_cast<float>((1 << grid.bits) - 1);
  const float middle = static_cast<float>(1 << (grid.bits - 1));
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < linear.scales.cols(); ++g) {
      const float* w = weight.Row(r) + g * group;
      const auto [low, high] = std::minmax_element(w, w + group);
      const float bottom = std::min(0.0f, *low);
      const float span =
          grid.symmetric ? 2 * std::max(-*low, *high) : std::max(0.0f, *high) - bottom;
      const float scale = BF16ToFloat(FloatToBF16(std::max(span / top, 0x1p-14f)));
      const float zero = grid.symmetric ? middle : std::clamp(std::rint(-bottom / scale), 0.f, top);
      linear.scales.Row(r)[g] = scale;
      if (!grid.symmetric) linear.zeros.Row(r)[g] = zero;
      for (int64_t k = 0; k < group; ++k) {
        const float code = std::clamp(std::rint(w[k] / scale) + zero, 0.f, top);
        linear.codes[static_cast<size_t>(r * weight.cols + g * group + k)] =
            static_cast<uint8_t>(code);
      }
    }
  }
  return linear;
}

inline Matrix RandomWeight(int64_t rows, int64_t cols, uint32_t seed) {
  Matrix weight(rows, cols);
  std::mt19937 random(seed);
  for (int64_t i = 0; i < weight.size(); ++i) {
    weight.data()[i] = (static_cast<float>(random() % 20001) - 9000.0f) / 100000.0f;
  }
  return weight;
}

}  // namespace lwq::testing
