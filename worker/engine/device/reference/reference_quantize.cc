// Grids, rounding and the GPTQ block of the reference device: each value as its definition, sums in
// double. Rounding divides in F32 as every device does, so that codes can be compared for equality.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/device/scale_grid.h"
#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/half.h"

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

float ZeroOf(const GridSpec& grid, ConstMatrixView zeros, int64_t row, int64_t group) {
  return grid.symmetric ? SymmetricZero(grid.bits) : zeros.Row(row)[group];
}

}  // namespace

absl::Status ReferenceDevice::FitGrid(DeviceView<const float> weight, const GridSpec& grid,
                                      DeviceSpan<const float> column_weight,
                                      DeviceView<float> scales, DeviceView<float> zeros) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const ShrinkSweep sweep(grid.bits);
  const float* importance = space_.Host(column_weight.data);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < weight.cols / group_size; ++g) {
      const float* w = Row(weight, r) + g * group_size;
      GroupRange range;
      for (int64_t k = 0; k < group_size; ++k) {
        range.low = std::min(range.low, NanToZero(w[k]));
        range.high = std::max(range.high, NanToZero(w[k]));
      }
      const float* h = importance == nullptr ? nullptr : importance + g * group_size;
      const GridCandidate best =
          FitGroup(grid, sweep, range, GroupSums(w, h, group_size, LargestCode(grid.bits)));
      Row(scales, r)[g] = best.scale;
      if (!grid.symmetric) Row(zeros, r)[g] = best.zero;
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RoundToGrid(DeviceView<const float> weight, const GridSpec& grid,
                                          DeviceView<const float> scales,
                                          DeviceView<const float> zeros,
                                          DeviceView<uint8_t> codes) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t g = k / group_size;
      Row(codes, r)[k] = static_cast<uint8_t>(CodeOf(Row(weight, r)[k], Row(scales, r)[g],
                                                     ZeroOf(grid, space_.Host(zeros), r, g),
                                                     LargestCode(grid.bits)));
    }
  }
  return absl::OkStatus();
}

// Bit by bit.
absl::Status ReferenceDevice::UnpackCodes(DeviceView<const uint8_t> packed, int bits,
                                          DeviceView<uint8_t> codes) {
  LWQ_RETURN_IF_ERROR(CheckPacked(packed, bits, codes));
  for (int64_t r = 0; r < codes.rows; ++r) {
    for (int64_t k = 0; k < codes.cols; ++k) {
      int code = 0;
      for (int b = 0; b < bits; ++b) {
        const int64_t at = k * bits + b;
        code |= (Row(packed, r)[at / 8] >> (at % 8) & 1) << b;
      }
      Row(codes, r)[k] = static_cast<uint8_t>(code);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Dequantize(DeviceView<const uint8_t> codes, const GridSpec& grid,
                                         DeviceView<const float> scales,
                                         DeviceView<const float> zeros, DeviceView<float> weight) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t g = k / group_size;
      const float code = Row(codes, r)[k];
      Row(weight, r)[k] = Row(scales, r)[g] * (code - ZeroOf(grid, space_.Host(zeros), r, g));
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::DequantizeBlocks(DeviceView<const uint8_t> blocks,
                                               const BlockLayout& layout,
                                               DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckBlocks(blocks, layout, weight));
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const uint8_t* block = Row(blocks, r) + k / layout.block_size * layout.block_bytes;
      const int i = static_cast<int>(k % layout.block_size), j = i / layout.sub_block_size;
      const float scale = F16ToFloat(BlockLayout::HalfAt(block, layout.scale_at));
      const float step = scale * static_cast<float>(layout.SubScale(block, j));
      float value = step * static_cast<float>(layout.Level(layout.Code(block, i)));
      if (layout.min_at >= 0) {
        const float min = F16ToFloat(BlockLayout::HalfAt(block, layout.min_at));
        const float offset = min * static_cast<float>(layout.SubMin(block, j));
        value = layout.min_added ? value + offset : value - offset;
      }
      Row(weight, r)[k] = value;
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::DequantizeE4M3(DeviceView<const uint8_t> codes,
                                             DeviceView<const float> scales,
                                             DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckE4M3(codes, scales, weight));
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      Row(weight, r)[k] = Row(scales, r)[0] * E4M3ToFloat(Row(codes, r)[k]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::GridError(DeviceView<const float> weight,
                                        DeviceView<const uint8_t> codes, const GridSpec& grid,
                                        DeviceView<const float> scales,
                                        DeviceView<const float> zeros, DeviceSpan<double> error,
                                        DeviceSpan<double> square) {
  LWQ_RETURN_IF_ERROR(CheckShape("codes", codes, weight.rows, weight.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' errors", error.size, weight.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' squares", square.size, weight.rows));
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    double& errors = space_.Host(error)[r];
    double& squares = space_.Host(square)[r];
    errors = squares = 0;
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t g = k / group_size;
      const double w = Row(weight, r)[k];
      const double steps = Row(codes, r)[k] - ZeroOf(grid, space_.Host(zeros), r, g);
      const double difference = w - Row(scales, r)[g] * steps;
      errors += difference * difference;
      squares += w * w;
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::GptqBlock(const GptqColumns& block) {
  const HostGptqColumns b(space_, block);
  const float top = LargestCode(b.grid.bits);
  const int64_t group_size = b.grid.GroupSizeFor(b.in_features);
  std::vector<double> row(b.w.cols);
  for (int64_t r = 0; r < b.w.rows; ++r) {
    std::copy(b.w.Row(r), b.w.Row(r) + b.w.cols, row.begin());
    for (int64_t j = 0; j < b.w.cols; ++j) {
      const int64_t group = b.columns[j] / group_size;
      const float scale = b.scales.Row(r)[group];
      const float zero = ZeroOf(b.grid, b.zeros, r, group);
      const float code = CodeOf(static_cast<float>(row[j]), scale, zero, top);
      const float value = scale * (code - zero);
      const double scaled_error = (row[j] - value) / b.u.Row(j)[j];
      b.loss[r] += scaled_error * scaled_error;
      b.codes.Row(r)[j] = static_cast<uint8_t>(code);
      b.w.Row(r)[j] = value;
      b.error.Row(r)[j] = static_cast<float>(scaled_error);
      for (int64_t k = j + 1; k < b.w.cols; ++k) row[k] -= scaled_error * b.u.Row(j)[k];
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
