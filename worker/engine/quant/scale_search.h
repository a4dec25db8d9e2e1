// AWQ's search (methods 4.1): by which scales the inputs of some linears should be divided, and their
// columns multiplied, so that rounding costs their outputs least. Channels that carry large inputs get
// finer steps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/device/device.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// tr(M H M^T) for H the sum of x x^T over tokens: the squared outputs of M, or, for M an error of
// weights, of the error of the outputs.
class OutputPower {
 public:
  // `triangle` [K, K] holds the lower triangle; it is taken over.
  static absl::StatusOr<OutputPower> Create(Device* device, std::unique_ptr<DeviceMatrix> triangle);

  // Of `m` [rows, K], host memory.
  absl::StatusOr<double> Of(ConstMatrixView m) const;
  // The diagonal of H.
  const std::vector<float>& diagonal() const { return diagonal_; }

 private:
  Device* device_ = nullptr;
  std::unique_ptr<PreparedWeight> h_;
  std::vector<float> diagonal_;
};

// Scales over the geometric mean of the largest and the smallest, so that what is stored keeps its
// size. Ones where a scale is not finite.
std::vector<float> OverTheirMiddle(std::vector<float> scales);

// AWQ's candidate: magnitudes^exponent, at least 1e-4, over their middle.
std::vector<float> CandidateScales(absl::Span<const float> magnitudes, double exponent);

// Weights that the search weighs columns with: the inputs' mean squares once they are divided by
// `scales`, with a small floor. Empty scales are ones.
std::vector<float> ColumnWeights(absl::Span<const float> diagonal, absl::Span<const float> scales);

// Some rows of a linear that reads the scaled input.
struct ScaledReader {
  Matrix rows;
  const OutputPower* power = nullptr;  // of its input
  // Of each column, the channel whose scale it takes.
  std::function<int64_t(int64_t column)> channel_of;
};

struct FoundScales {
  std::vector<float> scales;  // by channel; all ones where nothing is better
  double exponent = 0;
  double loss = 0, unscaled_loss = 0;  // summed over the readers' rows
};

// The best of 20 exponents from 0 on. `realize` makes of the scales that are wanted those that can be
// stored; nothing else is judged. Grids are `grid` wherever its group divides a reader's columns,
// else one group per row.
absl::StatusOr<FoundScales> FindScales(
    Device* device, absl::Span<const float> magnitudes, absl::Span<const ScaledReader> readers,
    const GridSpec& grid,
    const std::function<std::vector<float>(std::vector<float>)>& realize);

}  // namespace lwq
