// GPTQ as its paper has it, in double: no blocks, no lazy updates, nothing of lwq's. What the
// quantizer is judged by.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "worker/engine/quant/quantizer.h"

namespace lwq::testing {

// U upper with H^-1 = U^T U, the plain way: invert by Gauss-Jordan, then Cholesky of the inverse.
inline std::vector<double> InverseFactor(std::vector<double> h, int64_t n) {
  std::vector<double> inverse(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (int64_t p = 0; p < n; ++p) {
    const double pivot = h[p * n + p];
    for (int64_t j = 0; j < n; ++j) h[p * n + j] /= pivot;
    for (int64_t j = 0; j < n; ++j) inverse[p * n + j] /= pivot;
    for (int64_t i = 0; i < n; ++i) {
      const double f = h[i * n + p];
      if (i == p || f == 0) continue;
      for (int64_t j = 0; j < n; ++j) h[i * n + j] -= f * h[p * n + j];
      for (int64_t j = 0; j < n; ++j) inverse[i * n + j] -= f * inverse[p * n + j];
    }
  }
  std::vector<double> u(n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n; ++j) {
      double sum = inverse[i * n + j];
      for (int64_t k = 0; k < i; ++k) sum -= u[k * n + i] * u[k * n + j];
      u[i * n + j] = i == j ? std::sqrt(sum) : sum / u[i * n + i];
    }
  }
  return u;
}

// Textbook GPTQ in double with act order, on given static grids: no blocks, no lazy updates.
class TextbookGptq {
 public:
  TextbookGptq(const std::vector<double>& h, int64_t n) : n_(n), order_(n) {
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return h[a * n + a] > h[b * n + b]; });
    std::vector<double> permuted(n * n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) permuted[i * n + j] = h[order_[i] * n + order_[j]];
    }
    u_ = InverseFactor(std::move(permuted), n);
  }

  Matrix Quantize(ConstMatrixView weight, const QuantizedLinear& on_grid) const {
    const int bits = on_grid.grid.bits;
    const int64_t group_size = on_grid.grid.GroupSizeFor(n_);
    Matrix out(weight.rows, n_);
    std::vector<double> w(n_);
    for (int64_t r = 0; r < weight.rows; ++r) {
      for (int64_t j = 0; j < n_; ++j) w[j] = weight.Row(r)[order_[j]];
      for (int64_t j = 0; j < n_; ++j) {
        const int64_t group = order_[j] / group_size;
        const double scale = on_grid.scales.Row(r)[group];
        const double zero = on_grid.grid.symmetric ? 1 << (bits - 1) : on_grid.zeros.Row(r)[group];
        const double top = (1 << bits) - 1;
        const double code = std::min(std::max(std::nearbyint(w[j] / scale) + zero, 0.0), top);
        const double value = scale * (code - zero);
        out.Row(r)[order_[j]] = static_cast<float>(value);
        const double error = (w[j] - value) / u_[j * n_ + j];
        for (int64_t k = j + 1; k < n_; ++k) w[k] -= error * u_[j * n_ + k];
      }
    }
    return out;
  }

 private:
  int64_t n_;
  std::vector<int64_t> order_;
  std::vector<double> u_;
};

}  // namespace lwq::testing
