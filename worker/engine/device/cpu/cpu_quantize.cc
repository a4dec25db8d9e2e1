// Grids, rounding and the GPTQ block on the CPU, vectorised with the instruction set chosen at run
// time. FitGrid works along a group held in the first-level cache and judges four candidates a
// pass; GptqBlock works across rows, on tiles transposed into a small buffer, so that the column
// loop has no scalar part. Rounding divides (not multiplies by the inverse), so codes equal the
// reference's.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/scale_grid.h"
#include "worker/engine/tensor/pack_bits.h"

// This file includes itself for each instruction set; what they share is here.
#ifndef LWQ_DEVICE_CPU_QUANTIZE_ONCE_
#define LWQ_DEVICE_CPU_QUANTIZE_ONCE_
namespace lwq {
inline constexpr int64_t kVectors = 2;    // of rows in a tile of GPTQ's
inline constexpr int64_t kMaxLanes = 16;  // of a vector
}  // namespace lwq
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/device/cpu/cpu_quantize.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/engine/device/cpu/row_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, what a group is padded to.
using D = hn::CappedTag<float, kMaxLanes>;
using V = hn::Vec<D>;
using DI = hn::RebindToSigned<D>;
using DU8 = hn::Rebind<uint8_t, D>;

HWY_INLINE V NanToZero(V w) { return hn::IfThenElseZero(hn::Eq(w, w), w); }

HWY_INLINE V CodeOf(V w, V scale, V zero, V top) {
  const V steps = hn::Round(hn::Div(NanToZero(w), scale));
  return hn::Min(hn::Max(hn::Add(steps, zero), hn::Zero(D())), top);
}

HWY_INLINE void StoreCodes(V code, uint8_t* to) {
  hn::StoreU(hn::DemoteTo(DU8(), hn::ConvertTo(DI(), code)), DU8(), to);
}

// The sums of FitGroup over a group padded with weights and importances of zero.
class GroupSums {
 public:
  GroupSums(const float* w, const float* h, int64_t n, float top)
      : w_(w), h_(h), n_(n), top_(top) {}

  void Errors(const GridCandidate (&candidates)[kCandidateBatch], float* errors) const {
    const D d;
    V scale[kCandidateBatch];
    V inverse[kCandidateBatch];
    V lowest[kCandidateBatch];
    V highest[kCandidateBatch];
    V sum[kCandidateBatch];
    for (int c = 0; c < kCandidateBatch; ++c) {
      scale[c] = hn::Set(d, candidates[c].scale);
      inverse[c] = hn::Set(d, 1.0f / candidates[c].scale);
      lowest[c] = hn::Set(d, -candidates[c].zero);
      highest[c] = hn::Set(d, top_ - candidates[c].zero);
      sum[c] = hn::Zero(d);
    }
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t k = 0; k < n_; k += lanes) {
      const V w = hn::LoadU(d, w_ + k);
      const V h = hn::LoadU(d, h_ + k);
      for (int c = 0; c < kCandidateBatch; ++c) {
        const V steps = hn::Min(hn::Max(hn::Round(hn::Mul(w, inverse[c])), lowest[c]), highest[c]);
        const V difference = hn::NegMulAdd(steps, scale[c], w);
        sum[c] = hn::MulAdd(hn::Mul(h, difference), difference, sum[c]);
      }
    }
    for (int c = 0; c < kCandidateBatch; ++c) errors[c] = hn::GetLane(hn::SumOfLanes(d, sum[c]));
  }

  float RefitScale(const GridCandidate& candidate) const {
    const D d;
    const V inverse = hn::Set(d, 1.0f / candidate.scale);
    const V lowest = hn::Set(d, -candidate.zero);
    const V highest = hn::Set(d, top_ - candidate.zero);
    V cross = hn::Zero(d);
    V square = hn::Zero(d);
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t k = 0; k < n_; k += lanes) {
      const V w = hn::LoadU(d, w_ + k);
      const V steps = hn::Min(hn::Max(hn::Round(hn::Mul(w, inverse)), lowest), highest);
      const V weighted = hn::Mul(hn::LoadU(d, h_ + k), steps);
      cross = hn::MulAdd(weighted, w, cross);
      square = hn::MulAdd(weighted, steps, square);
    }
    const float denominator = hn::GetLane(hn::SumOfLanes(d, square));
    return denominator > 0 ? hn::GetLane(hn::SumOfLanes(d, cross)) / denominator : 0.0f;
  }

 private:
  const float* w_;
  const float* h_;
  int64_t n_;
  float top_;
};

// Copies a group into `padded`, NaN as zero, and returns its range.
GroupRange LoadGroup(const float* w, int64_t n, float* padded) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V low = hn::Zero(d);
  V high = hn::Zero(d);
  int64_t k = 0;
  for (; k + lanes <= n; k += lanes) {
    const V v = NanToZero(hn::LoadU(d, w + k));
    hn::StoreU(v, d, padded + k);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
  }
  GroupRange range{hn::GetLane(hn::MinOfLanes(d, low)), hn::GetLane(hn::MaxOfLanes(d, high))};
  for (; k < n; ++k) {
    padded[k] = std::isnan(w[k]) ? 0.0f : w[k];
    range.low = std::min(range.low, padded[k]);
    range.high = std::max(range.high, padded[k]);
  }
  return range;
}

// `h` holds each group's importances padded to `padded_size`; `buffer` has room for one such group.
void FitRow(const float* w, int64_t num_groups, int64_t group_size, int64_t padded_size,
            const GridSpec& grid, const ShrinkSweep& sweep, const float* h, float* buffer,
            float* scales, float* zeros) {
  for (int64_t g = 0; g < num_groups; ++g) {
    const GroupRange range = LoadGroup(w + g * group_size, group_size, buffer);
    const GridCandidate best =
        FitGroup(grid, sweep, range,
                 GroupSums(buffer, h + g * padded_size, padded_size, LargestCode(grid.bits)));
    scales[g] = best.scale;
    if (zeros != nullptr) zeros[g] = best.zero;
  }
}

void RoundGroup(const float* w, int64_t n, float scale, float zero, float top, uint8_t* codes) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const V vector_scale = hn::Set(d, scale);
  const V vector_zero = hn::Set(d, zero);
  const V vector_top = hn::Set(d, top);
  int64_t k = 0;
  for (; k + lanes <= n; k += lanes) {
    StoreCodes(CodeOf(hn::LoadU(d, w + k), vector_scale, vector_zero, vector_top), codes + k);
  }
  for (; k < n; ++k) {
    const float v = std::isnan(w[k]) ? 0.0f : w[k];
    codes[k] = static_cast<uint8_t>(std::clamp(std::nearbyint(v / scale) + zero, 0.0f, top));
  }
}

void DequantizeGroup(const uint8_t* codes, int64_t n, float scale, float zero, float* w) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const V vector_scale = hn::Set(d, scale);
  const V vector_zero = hn::Set(d, zero);
  int64_t k = 0;
  for (; k + lanes <= n; k += lanes) {
    const V code = hn::ConvertTo(d, hn::PromoteTo(DI(), hn::LoadU(DU8(), codes + k)));
    hn::StoreU(hn::Mul(vector_scale, hn::Sub(code, vector_zero)), d, w + k);
  }
  for (; k < n; ++k) w[k] = scale * (static_cast<float>(codes[k]) - zero);
}

// Adds the squares of a group's errors and of its weights, each summed in kSums parts first, so
// that the loop vectorises.
void AddSquares(const float* w, const uint8_t* codes, int64_t n, float scale, float zero,
                double* error, double* square) {
  constexpr int64_t kSums = 16;
  float errors[kSums] = {};
  float squares[kSums] = {};
  const auto add = [&](int64_t k, int64_t lane) {
    const float difference = w[k] - scale * (static_cast<float>(codes[k]) - zero);
    errors[lane] += difference * difference;
    squares[lane] += w[k] * w[k];
  };
  int64_t k = 0;
  for (; k + kSums <= n; k += kSums) {
    for (int64_t lane = 0; lane < kSums; ++lane) add(k + lane, lane);
  }
  for (; k < n; ++k) add(k, 0);
  for (int64_t lane = 0; lane < kSums; ++lane) {
    *error += errors[lane];
    *square += squares[lane];
  }
}

// Some rows of one GPTQ block: column j of the weights, of their scales and of their zeros, each
// across rows. Two vectors of rows go together, because there is too little to do for one while
// the arithmetic of another is under way. Lanes without a row compute on zeros and a scale of one.
class GptqTile {
 public:
  // `group_of`: [B], each column's group. `buffer`: 3 x B x kVectors vectors.
  GptqTile(const HostGptqColumns& block, const int64_t* group_of, float* buffer)
      : block_(block),
        cols_(block.w.cols),
        group_of_(group_of),
        top_(hn::Set(D(), LargestCode(block.grid.bits))),
        width_(kVectors * Lanes()),
        weights_(buffer),
        scales_(weights_ + cols_ * width_),
        zeros_(scales_ + cols_ * width_) {}

  int64_t width() const { return width_; }

  void Run(int64_t first, int64_t rows, double* loss) {
    LoadRows(first, rows);
    V squares[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) squares[v] = hn::Zero(D());
    int64_t j = 0;
    for (; j + kAtOnce <= cols_; j += kAtOnce) RoundColumns<kAtOnce>(j, squares);
    for (; j < cols_; ++j) RoundColumns<1>(j, squares);
    float sums[kMaxRows];
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(squares[v], D(), sums + v * Lanes());
    for (int64_t r = 0; r < rows; ++r) loss[first + r] += sums[r];
    StoreRows(first, rows);
  }

 private:
  static constexpr int64_t kAtOnce = 4;  // columns to one pass over those that follow
  static constexpr int64_t kMaxRows = kVectors * kMaxLanes;

  static int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(D())); }
  // Vector v of a column in one of the buffers.
  float* At(float* buffer, int64_t column, int64_t v) const {
    return buffer + column * width_ + v * Lanes();
  }

  void LoadRows(int64_t first, int64_t rows) {
    if (rows < width_) {
      std::fill_n(weights_, cols_ * width_, 0.0f);
      std::fill_n(scales_, cols_ * width_, 1.0f);
    }
    std::fill_n(zeros_, cols_ * width_, SymmetricZero(block_.grid.bits));
    LoadTile(
        rows, cols_, width_, [&](int64_t r) { return block_.w.Row(first + r); }, weights_);
    for (int64_t r = 0; r < rows; ++r) {
      const float* scale = block_.scales.Row(first + r);
      for (int64_t j = 0; j < cols_; ++j) scales_[j * width_ + r] = scale[group_of_[j]];
      if (block_.grid.symmetric) continue;
      const float* zero = block_.zeros.Row(first + r);
      for (int64_t j = 0; j < cols_; ++j) zeros_[j * width_ + r] = zero[group_of_[j]];
    }
  }

  // Columns j to j + N - 1, one after the other; the columns behind them follow in one pass.
  template <int64_t N>
  HWY_INLINE void RoundColumns(int64_t j, V (&squares)[kVectors]) {
    const D d;
    V value[N][kVectors], error[N][kVectors];
    const float* factor[N];
    for (int64_t i = 0; i < N; ++i) {
      factor[i] = block_.u.Row(j + i);
      for (int64_t v = 0; v < kVectors; ++v) value[i][v] = hn::LoadU(d, At(weights_, j + i, v));
    }
    for (int64_t i = 0; i < N; ++i) {
      const V here = hn::Set(d, factor[i][j + i]);
      for (int64_t v = 0; v < kVectors; ++v) {
        const V scale = hn::LoadU(d, At(scales_, j + i, v));
        const V zero = hn::LoadU(d, At(zeros_, j + i, v));
        const V code = CodeOf(value[i][v], scale, zero, top_);
        const V rounded = hn::Mul(scale, hn::Sub(code, zero));
        error[i][v] = hn::Div(hn::Sub(value[i][v], rounded), here);
        squares[v] = hn::MulAdd(error[i][v], error[i][v], squares[v]);
        for (int64_t k = i + 1; k < N; ++k) {
          value[k][v] = hn::NegMulAdd(error[i][v], hn::Set(d, factor[i][j + k]), value[k][v]);
        }
        hn::StoreU(rounded, d, At(weights_, j + i, v));
        hn::StoreU(error[i][v], d, At(scales_, j + i, v));  // the scale has done its work
        hn::StoreU(code, d, At(zeros_, j + i, v));
      }
    }
    for (int64_t k = j + N; k < cols_; ++k) {
      V rest[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) rest[v] = hn::LoadU(d, At(weights_, k, v));
      for (int64_t i = 0; i < N; ++i) {
        const V here = hn::Set(d, factor[i][k]);
        for (int64_t v = 0; v < kVectors; ++v) {
          rest[v] = hn::NegMulAdd(error[i][v], here, rest[v]);
        }
      }
      for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(rest[v], d, At(weights_, k, v));
    }
  }

  void StoreRows(int64_t first, int64_t rows) {
    StoreTile(weights_, rows, cols_, width_, [&](int64_t r) { return block_.w.Row(first + r); });
    StoreTile(scales_, rows, cols_, width_, [&](int64_t r) { return block_.error.Row(first + r); });
    StoreTile(zeros_, rows, cols_, width_, [&](int64_t r) { return block_.codes.Row(first + r); });
  }

  const HostGptqColumns& block_;
  const int64_t cols_;
  const int64_t* const group_of_;
  const V top_;
  const int64_t width_;  // rows a tile has room for
  float* const weights_;
  float* const scales_;  // then the scaled errors
  float* const zeros_;   // then the codes
};

void GptqRows(const HostGptqColumns& block, const int64_t* group_of, int64_t begin, int64_t end,
              float* buffer, double* loss) {
  GptqTile tile(block, group_of, buffer);
  for (int64_t first = begin; first < end; first += tile.width()) {
    tile.Run(first, std::min(tile.width(), end - first), loss);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwq {
namespace {

HWY_EXPORT(FitRow);
HWY_EXPORT(RoundGroup);
HWY_EXPORT(DequantizeGroup);
HWY_EXPORT(AddSquares);
HWY_EXPORT(GptqRows);

constexpr int64_t kRowsPerTask = kVectors * kMaxLanes;

float ZeroAt(const GridSpec& grid, DeviceView<const float> zeros, int64_t row, int64_t group) {
  return grid.symmetric ? SymmetricZero(grid.bits) : Row(zeros, row)[group];
}

}  // namespace

absl::Status CpuDevice::FitGrid(DeviceView<const float> weight, const GridSpec& grid,
                                DeviceSpan<const float> column_weight, DeviceView<float> scales,
                                DeviceView<float> zeros) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const int64_t num_groups = grid.NumGroups(weight.cols);
  const int64_t padded_size = (group_size + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  const ShrinkSweep sweep(grid.bits);
  std::vector<float> importance(num_groups * padded_size, 0.0f);
  for (int64_t g = 0; g < num_groups; ++g) {
    float* to = importance.data() + g * padded_size;
    if (column_weight.empty()) {
      std::fill(to, to + group_size, 1.0f);
    } else {
      std::copy_n(Host(column_weight.data) + g * group_size, group_size, to);
    }
  }
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer(padded_size, 0.0f);
    for (int64_t r = begin; r < end; ++r) {
      HWY_DYNAMIC_DISPATCH(FitRow)
      (Row(weight, r), num_groups, group_size, padded_size, grid, sweep, importance.data(),
       buffer.data(), Row(scales, r), grid.symmetric ? nullptr : Row(zeros, r));
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::RoundToGrid(DeviceView<const float> weight, const GridSpec& grid,
                                    DeviceView<const float> scales, DeviceView<const float> zeros,
                                    DeviceView<uint8_t> codes) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const int64_t num_groups = grid.NumGroups(weight.cols);
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t g = 0; g < num_groups; ++g) {
        HWY_DYNAMIC_DISPATCH(RoundGroup)
        (Row(weight, r) + g * group_size, group_size, Row(scales, r)[g], ZeroAt(grid, zeros, r, g),
         LargestCode(grid.bits), Row(codes, r) + g * group_size);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::UnpackCodes(DeviceView<const uint8_t> packed, int bits,
                                    DeviceView<uint8_t> codes) {
  LWQ_RETURN_IF_ERROR(CheckPacked(packed, bits, codes));
  pool_.ParallelForBlocks(codes.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      UnpackBits(Row(packed, r), codes.cols, bits, Row(codes, r));
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::Dequantize(DeviceView<const uint8_t> codes, const GridSpec& grid,
                                   DeviceView<const float> scales, DeviceView<const float> zeros,
                                   DeviceView<float> weight) {
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const int64_t num_groups = grid.NumGroups(weight.cols);
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t g = 0; g < num_groups; ++g) {
        HWY_DYNAMIC_DISPATCH(DequantizeGroup)
        (Row(codes, r) + g * group_size, group_size, Row(scales, r)[g], ZeroAt(grid, zeros, r, g),
         Row(weight, r) + g * group_size);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::GridError(DeviceView<const float> weight, DeviceView<const uint8_t> codes,
                                  const GridSpec& grid, DeviceView<const float> scales,
                                  DeviceView<const float> zeros, DeviceSpan<double> error,
                                  DeviceSpan<double> square) {
  LWQ_RETURN_IF_ERROR(CheckShape("codes", codes, weight.rows, weight.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' errors", error.size, weight.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' squares", square.size, weight.rows));
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const int64_t num_groups = grid.NumGroups(weight.cols);
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      double errors = 0, squares = 0;
      for (int64_t g = 0; g < num_groups; ++g) {
        HWY_DYNAMIC_DISPATCH(AddSquares)
        (Row(weight, r) + g * group_size, Row(codes, r) + g * group_size, group_size,
         Row(scales, r)[g], ZeroAt(grid, zeros, r, g), &errors, &squares);
      }
      Host(error.data)[r] = errors;
      Host(square.data)[r] = squares;
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::GptqBlock(const GptqColumns& block) {
  const HostGptqColumns host(HostSpace(0), block);
  std::vector<int64_t> group_of;  // of each column
  for (const int32_t column : host.columns) {
    group_of.push_back(column / host.grid.GroupSizeFor(host.in_features));
  }
  pool_.ParallelForBlocks(host.w.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GptqRows)
    (host, group_of.data(), begin, end, ThreadBuffer(3 * host.w.cols * kRowsPerTask),
     host.loss.data());
  });
  return absl::OkStatus();
}

}  // namespace lwq
#endif  // HWY_ONCE
