// RefineBlock on the CPU, vectorised with the instruction set chosen at run time. As in GptqBlock,
// a vector holds the same column of several rows, on tiles transposed into a small buffer: every
// row then takes its own steps without a scalar part. Two vectors of rows go together, because
// there is too little to do for one while the arithmetic of another is under way.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/host_space.h"
#include "worker/engine/device/scale_grid.h"

// This file includes itself for each instruction set; what they share is here.
#ifndef LWQ_DEVICE_CPU_REFINE_ONCE_
#define LWQ_DEVICE_CPU_REFINE_ONCE_
namespace lwq {
inline constexpr int64_t kVectors = 2;    // of rows in a tile
inline constexpr int64_t kMaxLanes = 16;  // of a vector
}  // namespace lwq
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/device/cpu/cpu_refine.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/engine/device/cpu/row_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most kMaxLanes rows a vector, what a task's buffer has room for.
using D = hn::CappedTag<float, kMaxLanes>;
using V = hn::Vec<D>;

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(D())); }

// The rows of a block that begin at `first`, one a lane. Lanes without a row hold zeros and a scale
// of one.
class RefinementTile {
 public:
  // `buffer`: 4 x B x kVectors vectors.
  RefinementTile(const HostRefinementBlock& block, int64_t first, int64_t rows, float* buffer)
      : block_(block),
        first_(first),
        rows_(rows),
        width_(kVectors * Lanes()),
        size_(block.residual.cols),
        group_size_(block.grid.GroupSizeFor(size_)),
        residual_(buffer),
        steps_(residual_ + size_ * width_),
        before_(steps_ + size_ * width_),
        moment_(before_ + size_ * width_) {
    if (rows < width_) std::fill_n(buffer, 4 * size_ * width_, 0.0f);
    LoadTile(
        rows, size_, width_, [&](int64_t r) { return block.residual.Row(first + r); }, residual_);
  }

  void Run(double* gain) {
    for (int64_t g = 0; g < size_ / group_size_; ++g) RefineGroup(g);
    StoreRows();
    for (int64_t r = 0; r < rows_; ++r) gain[first_ + r] += gain_[r];
  }

 private:
  static constexpr int64_t kMaxRows = kVectors * kMaxLanes;
  // Columns handled together: sums that do not wait for each other, one pass over what follows.
  static constexpr int64_t kAtOnce = 4;

  // What one vector of rows has of a group.
  struct Grid {
    V scale, zero, lowest, highest;
  };

  // Vector v of a column in one of the buffers.
  float* At(float* buffer, int64_t column, int64_t v) const {
    return buffer + column * width_ + v * Lanes();
  }
  V Load(const float* from) const { return hn::LoadU(D(), from); }

  void RefineGroup(int64_t g) {
    const D d;
    const int64_t begin = g * group_size_, end = begin + group_size_;
    float scales[kMaxRows], zeros[kMaxRows] = {};
    std::fill_n(scales, kMaxRows, 1.0f);
    for (int64_t r = 0; r < rows_; ++r) {
      scales[r] = block_.scales.Row(first_ + r)[g];
      zeros[r] =
          block_.grid.symmetric ? SymmetricZero(block_.grid.bits) : block_.zeros.Row(first_ + r)[g];
    }
    LoadTile(
        rows_, group_size_, width_, [&](int64_t r) { return block_.codes.Row(first_ + r) + begin; },
        steps_ + begin * width_);
    Grid grid[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) {
      const V zero = Load(zeros + v * Lanes());
      grid[v] = {Load(scales + v * Lanes()), zero, hn::Neg(zero),
                 hn::Sub(hn::Set(d, LargestCode(block_.grid.bits)), zero)};
      for (int64_t j = begin; j < end; ++j) {
        const V steps = hn::Sub(Load(At(steps_, j, v)), zero);
        hn::StoreU(steps, d, At(steps_, j, v));
        hn::StoreU(hn::Mul(grid[v].scale, steps), d, At(before_, j, v));
      }
    }
    if (block_.refit_scales) {
      Moments(begin, end);
      for (int64_t v = 0; v < kVectors; ++v) {
        grid[v].scale = RefitScale(begin, end, v, grid[v].scale);
        hn::StoreU(grid[v].scale, d, scales + v * Lanes());
      }
      for (int64_t r = 0; r < rows_; ++r) block_.scales.Row(first_ + r)[g] = scales[r];
    }
    V gain[kVectors];  // of the group: few enough terms for F32
    for (int64_t v = 0; v < kVectors; ++v) gain[v] = hn::Zero(d);
    int64_t j = begin;
    for (; j + kAtOnce <= end; j += kAtOnce) RefineCodes<kAtOnce>(j, grid, gain);
    for (; j < end; ++j) RefineCodes<1>(j, grid, gain);
    for (int64_t v = 0; v < kVectors; ++v) {
      AddGain(v, gain[v]);
      for (j = begin; j < end; ++j) {  // before_ becomes the change, steps_ become codes
        const V steps = Load(At(steps_, j, v));
        const V change = hn::Sub(hn::Mul(grid[v].scale, steps), Load(At(before_, j, v)));
        hn::StoreU(change, d, At(before_, j, v));
        hn::StoreU(hn::Add(steps, grid[v].zero), d, At(steps_, j, v));
      }
    }
  }

  // moment_[i] = sum over the group of h[i, j] steps[j], for the columns from `begin` on: the ones
  // before are done.
  void Moments(int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kAtOnce <= size_; i += kAtOnce) MomentsOf<kAtOnce>(i, begin, end);
    for (; i < size_; ++i) MomentsOf<1>(i, begin, end);
  }

  template <int64_t N>
  HWY_INLINE void MomentsOf(int64_t i, int64_t begin, int64_t end) {
    const D d;
    V sums[N][kVectors];
    const float* h[N];
    for (int64_t n = 0; n < N; ++n) {
      h[n] = block_.h.Row(i + n);
      for (int64_t v = 0; v < kVectors; ++v) sums[n][v] = hn::Zero(d);
    }
    for (int64_t j = begin; j < end; ++j) {
      V steps[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) steps[v] = Load(At(steps_, j, v));
      for (int64_t n = 0; n < N; ++n) {
        const V here = hn::Set(d, h[n][j]);
        for (int64_t v = 0; v < kVectors; ++v) {
          sums[n][v] = hn::MulAdd(here, steps[v], sums[n][v]);
        }
      }
    }
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sums[n][v], d, At(moment_, i + n, v));
    }
  }

  // The scales of vector v after least squares, where that helps; the residual follows.
  V RefitScale(int64_t begin, int64_t end, int64_t v, V scale) {
    const D d;
    V cross = hn::Zero(d), square = hn::Zero(d);
    for (int64_t j = begin; j < end; ++j) {
      const V step = Load(At(steps_, j, v));
      cross = hn::MulAdd(Load(At(residual_, j, v)), step, cross);
      square = hn::MulAdd(Load(At(moment_, j, v)), step, square);
    }
    const auto any = hn::Gt(square, hn::Zero(d));
    float fitted[kMaxLanes] = {};
    hn::StoreU(hn::Add(scale, hn::Div(cross, hn::IfThenElse(any, square, hn::Set(d, 1.0f)))), d,
               fitted);
    for (int64_t r = 0; r < Lanes(); ++r) fitted[r] = SnapScale(fitted[r]);
    V difference = hn::IfThenElseZero(any, hn::Sub(Load(fitted), scale));
    const V gain = hn::Mul(difference, hn::NegMulAdd(difference, square, hn::Add(cross, cross)));
    const auto helps = hn::Gt(gain, hn::Zero(d));
    AddGain(v, hn::IfThenElseZero(helps, gain));
    difference = hn::IfThenElseZero(helps, difference);
    for (int64_t i = begin; i < size_; ++i) {
      float* at = At(residual_, i, v);
      hn::StoreU(hn::NegMulAdd(difference, Load(At(moment_, i, v)), Load(at)), d, at);
    }
    return hn::IfThenElse(helps, Load(fitted), scale);
  }

  // Codes j to j + N - 1, one after the other; the residuals behind them follow in one pass.
  template <int64_t N>
  HWY_INLINE void RefineCodes(int64_t j, const Grid (&grid)[kVectors], V (&gain)[kVectors]) {
    const D d;
    V residual[N][kVectors], difference[N][kVectors];
    const float* h[N];
    for (int64_t i = 0; i < N; ++i) {
      h[i] = block_.h.Row(j + i);
      for (int64_t v = 0; v < kVectors; ++v) residual[i][v] = Load(At(residual_, j + i, v));
    }
    for (int64_t i = 0; i < N; ++i) {
      const V here = hn::Set(d, h[i][j + i]);
      for (int64_t v = 0; v < kVectors; ++v) {
        const auto& [scale, zero, lowest, highest] = grid[v];
        const V r = residual[i][v];
        const V steps = Load(At(steps_, j + i, v));
        const V target = hn::Add(steps, hn::Div(r, hn::Mul(here, scale)));
        const V best = hn::Min(hn::Max(hn::Round(target), lowest), highest);
        const V moved = hn::Mul(scale, hn::Sub(best, steps));
        gain[v] = hn::MulAdd(moved, hn::NegMulAdd(moved, here, hn::Add(r, r)), gain[v]);
        hn::StoreU(best, d, At(steps_, j + i, v));
        difference[i][v] = moved;
        for (int64_t k = i + 1; k < N; ++k) {
          residual[k][v] = hn::NegMulAdd(moved, hn::Set(d, h[i][j + k]), residual[k][v]);
        }
      }
    }
    for (int64_t k = j + N; k < size_; ++k) {
      V rest[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) rest[v] = Load(At(residual_, k, v));
      for (int64_t i = 0; i < N; ++i) {
        const V here = hn::Set(d, h[i][k]);
        for (int64_t v = 0; v < kVectors; ++v) {
          rest[v] = hn::NegMulAdd(difference[i][v], here, rest[v]);
        }
      }
      for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(rest[v], d, At(residual_, k, v));
    }
  }

  void AddGain(int64_t v, V gain) {
    float lanes[kMaxLanes];
    hn::StoreU(gain, D(), lanes);
    for (int64_t r = 0; r < Lanes(); ++r) gain_[v * Lanes() + r] += lanes[r];
  }

  void StoreRows() {
    StoreTile(steps_, rows_, size_, width_,
              [&](int64_t r) { return block_.codes.Row(first_ + r); });
    StoreTile(before_, rows_, size_, width_,
              [&](int64_t r) { return block_.change.Row(first_ + r); });
  }

  const HostRefinementBlock& block_;
  const int64_t first_, rows_;
  const int64_t width_;  // rows a tile has room for
  const int64_t size_, group_size_;
  float* const residual_;  // [B][width], as the next three
  float* const steps_;     // code - zero, then the codes
  float* const before_;    // values before, then what changed
  float* const moment_;
  double gain_[kMaxRows] = {};
};

void RefineRows(const HostRefinementBlock& block, int64_t begin, int64_t end, float* buffer,
                double* gain) {
  const int64_t width = kVectors * Lanes();
  for (int64_t first = begin; first < end; first += width) {
    RefinementTile(block, first, std::min(width, end - first), buffer).Run(gain);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwq {
namespace {

HWY_EXPORT(RefineRows);

constexpr int64_t kRowsPerTask = kVectors * kMaxLanes;

}  // namespace

absl::Status CpuDevice::RefineBlock(const RefinementBlock& block) {
  const HostRefinementBlock host(HostSpace(0), block);
  pool_.ParallelForBlocks(host.residual.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    float* buffer = ThreadBuffer(4 * host.residual.cols * kRowsPerTask);
    HWY_DYNAMIC_DISPATCH(RefineRows)(host, begin, end, buffer, host.gain.data());
  });
  return absl::OkStatus();
}

}  // namespace lwq
#endif  // HWY_ONCE
