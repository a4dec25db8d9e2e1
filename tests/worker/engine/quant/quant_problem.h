// Problems that the quantizer tests share: weights, correlated inputs, and the calibrated error in
// double as it is defined, tr(dW H dW^T).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/testing/test_devices.h"
#include "worker/engine/device/device.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq::testing {

inline Matrix GaussianMatrix(int64_t rows, int64_t cols, uint64_t seed, float sigma = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0, sigma);
  Matrix out(rows, cols);
  for (int64_t i = 0; i < out.size(); ++i) out.data()[i] = normal(engine);
  return out;
}

inline Matrix CopyOf(ConstMatrixView from) {
  Matrix out(from.rows, from.cols);
  for (int64_t r = 0; r < from.rows; ++r) std::copy_n(from.Row(r), from.cols, out.Row(r));
  return out;
}

// Inputs whose channels are correlated (each mixes with its neighbour) and differ in size by a
// factor of up to about 30, as a transformer's do.
inline Matrix CorrelatedInputs(int64_t tokens, int64_t channels, uint64_t seed) {
  Matrix x = GaussianMatrix(tokens, channels, seed);
  const Matrix size = GaussianMatrix(1, channels, seed + 1, 0.8f);
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = x.Row(t);
    for (int64_t k = 1; k < channels; ++k) row[k] = 0.8f * row[k - 1] + 0.6f * row[k];
    for (int64_t k = 0; k < channels; ++k) row[k] *= std::exp(size.Row(0)[k]);
  }
  return x;
}

struct Problem {
  Matrix weight;
  Matrix inputs;
};

// Weights of a usual size, and four times as many tokens as columns, so that H has full rank.
inline Problem RandomProblem(int64_t rows, int64_t cols, uint64_t seed) {
  return {GaussianMatrix(rows, cols, seed, 0.02f), CorrelatedInputs(4 * cols, cols, seed + 100)};
}

inline std::shared_ptr<const InputStatistics> StatisticsOf(
    Device* device, ConstMatrixView x, const InputStatistics::Options& options = {}) {
  auto gram = device->NewMatrix(x.cols, x.cols);
  EXPECT_OK(gram.status());
  EXPECT_OK(device->FillZero((*gram)->view()));
  auto inputs = OnDevice(device, x);
  EXPECT_OK(device->AccumulateGram(inputs->view(), ComputeType::kF32, (*gram)->view()));
  auto out = InputStatistics::Create(device, *std::move(gram), x.rows, options);
  EXPECT_OK(out.status());
  return *std::move(out);
}

// X^T X / N with `damping` times the mean of its diagonal added, in double.
inline std::vector<double> DampedHessian(ConstMatrixView x, double damping) {
  const int64_t n = x.cols;
  std::vector<double> h(n * n, 0.0);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      const double xi = x.Row(t)[i] / static_cast<double>(x.rows);
      for (int64_t j = 0; j < n; ++j) h[i * n + j] += xi * x.Row(t)[j];
    }
  }
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += h[i * n + i] / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) h[i * n + i] += damping * mean;
  return h;
}

inline double CalibratedError(ConstMatrixView w, ConstMatrixView q, const std::vector<double>& h) {
  const int64_t n = w.cols;
  double sum = 0;
  std::vector<double> d(n), product(n);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t k = 0; k < n; ++k) d[k] = double{w.Row(r)[k]} - q.Row(r)[k];
    std::fill(product.begin(), product.end(), 0.0);
    for (int64_t i = 0; i < n; ++i) {  // whole rows of H: no chain of dependent sums
      const double* row = &h[i * n];
      for (int64_t j = 0; j < n; ++j) product[j] += d[i] * row[j];
    }
    for (int64_t j = 0; j < n; ++j) sum += product[j] * d[j];
  }
  return sum;
}

inline Matrix ValuesOf(const QuantizedLinear& q) {
  Matrix out(q.out_features, q.in_features);
  const int64_t group = q.grid.GroupSizeFor(q.in_features);
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t k = 0; k < out.cols(); ++k) {
      const float zero =
          q.grid.symmetric ? static_cast<float>(1 << (q.grid.bits - 1)) : q.zeros.Row(r)[k / group];
      const float code = q.codes[r * out.cols() + k];
      out.Row(r)[k] = q.scales.Row(r)[k / group] * (code - zero);
    }
  }
  return out;
}

inline std::vector<QuantizedLinear> QuantizeWith(absl::string_view method, Device* device,
                                                 ConstMatrixView weight,
                                                 const InputStatistics* statistics,
                                                 absl::Span<const GridSpec> grids) {
  auto def = FindQuantizer(method);
  EXPECT_OK(def.status());
  auto on_device = OnDevice(device, weight);
  auto out = (*def)->make(OptionValues((*def)->options))->Quantize(device, on_device->view(), statistics, grids);
  EXPECT_OK(out.status());
  return out.ok() ? *std::move(out) : std::vector<QuantizedLinear>();
}

}  // namespace lwq::testing
