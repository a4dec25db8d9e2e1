// Grids, rounding and the GPTQ block of the reference device: each value as its definition, sums in
// double. Rounding divides in F32 as every device does, so that codes can be compared for equality.
#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/device/scale_grid.h"

namespace lwq {
namespace {

// NaN counts as zero in fits and becomes the code of zero.
float NanToZero(float w) { return std::isnan(w) ? 0.0f : w; }

float CodeOf(float w, float scale, float zero, float top) {
  return std::clamp(std::nearbyint(NanToZero(w) / scale) + zero, 0.0f, top);
}

class GroupSums {
 public:
  GroupSums(const float* w, const float* h, int64_t n, float top)
      : w_(w), h_(h), n_(n), top_(top) {}

  void Errors(const GridCandidate (&candidates)[kCandidateBatch], float* errors) const {
    for (int c = 0; c < kCandidateBatch; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < n_; ++k) {
        const double code = Steps(k, candidates[c]);
        const double difference = NanToZero(w_[k]) - code * candidates[c].scale;
        sum += Weight(k) * difference * difference;
      }
      errors[c] = static_cast<float>(sum);
    }
  }

  float RefitScale(const GridCandidate& candidate) const {
    double cross = 0;
    double square = 0;
    for (int64_t k = 0; k < n_; ++k) {
      const double code = Steps(k, candidate);
      cross += Weight(k) * NanToZero(w_[k]) * code;
      square += Weight(k) * code * code;
    }
    return square > 0 ? static_cast<float>(cross / square) : 0.0f;
  }

 private:
  double Weight(int64_t k) const { return h_ == nullptr ? 1.0 : h_[k]; }
  double Steps(int64_t k, const GridCandidate& c) const {
    return CodeOf(w_[k], c.scale, c.zero, top_) - c.zero;
  }

  const float* w_;
  const float* h_;
  int64_t n_;
  float top_;
};

float ZeroAt(const GridSpec& grid, ConstMatrixView zeros, int64_t row, int64_t group) {
  return grid.symmetric ? SymmetricZero(grid.bits) : zeros.Row(row)[group];
}

}  // namespace

absl::Status ReferenceDevice::FitGrid(ConstMatrixView weight, const GridSpec& grid,
                                      const float* column_weight, MatrixView scales,
                                      MatrixView zeros) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const ShrinkSweep sweep(grid.bits);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < weight.cols / group_size; ++g) {
      const float* w = weight.Row(r) + g * group_size;
      GroupRange range;
      for (int64_t k = 0; k < group_size; ++k) {
        range.low = std::min(range.low, NanToZero(w[k]));
        range.high = std::max(range.high, NanToZero(w[k]));
      }
      const float* h = column_weight == nullptr ? nullptr : column_weight + g * group_size;
      const GridCandidate best =
          FitGroup(grid, sweep, range, GroupSums(w, h, group_size, LargestCode(grid.bits)));
      scales.Row(r)[g] = best.scale;
      if (!grid.symmetric) zeros.Row(r)[g] = best.zero;
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RoundToGrid(ConstMatrixView weight, const GridSpec& grid,
                                          ConstMatrixView scales, ConstMatrixView zeros,
                                          uint8_t* codes) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t g = k / group_size;
      codes[r * weight.cols + k] = static_cast<uint8_t>(CodeOf(
          weight.Row(r)[k], scales.Row(r)[g], ZeroAt(grid, zeros, r, g), LargestCode(grid.bits)));
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Dequantize(const uint8_t* codes, const GridSpec& grid,
                                         ConstMatrixView scales, ConstMatrixView zeros,
                                         MatrixView weight) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t g = k / group_size;
      const float code = codes[r * weight.cols + k];
      weight.Row(r)[k] = scales.Row(r)[g] * (code - ZeroAt(grid, zeros, r, g));
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::GptqBlock(const GptqColumns& b, absl::Span<double> loss) {
  const float top = LargestCode(b.grid.bits);
  const int64_t group_size = b.grid.GroupSizeFor(b.in_features);
  std::vector<double> row(b.w.cols);
  for (int64_t r = 0; r < b.w.rows; ++r) {
    std::copy(b.w.Row(r), b.w.Row(r) + b.w.cols, row.begin());
    loss[r] = 0;
    for (int64_t j = 0; j < b.w.cols; ++j) {
      const int64_t group = b.columns[j] / group_size;
      const float scale = b.scales.Row(r)[group];
      const float zero = ZeroAt(b.grid, b.zeros, r, group);
      const float code = CodeOf(static_cast<float>(row[j]), scale, zero, top);
      const float value = scale * (code - zero);
      const double scaled_error = (row[j] - value) / b.u.Row(j)[j];
      loss[r] += scaled_error * scaled_error;
      b.codes[r * b.in_features + j] = static_cast<uint8_t>(code);
      b.w.Row(r)[j] = value;
      b.error.Row(r)[j] = static_cast<float>(scaled_error);
      for (int64_t k = j + 1; k < b.w.cols; ++k) row[k] -= scaled_error * b.u.Row(j)[k];
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
