// RefineBlock on the CPU, vectorised with the instruction set chosen at run time. As in GptqBlock,
// a vector holds the same column of several rows, on tiles transposed into a small buffer: every
// row then takes its own steps without a scalar part. Two vectors of rows go together, because
// there is too little to do for one while the arithmetic of another is under way.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/scale_grid.h"

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
  // `buffer`: 6 x B x kVectors vectors.
  RefinementTile(const RefinementBlock& block, int64_t first, int64_t rows, float* buffer)
      : block_(block),
        first_(first),
        rows_(rows),
        width_(kVectors * Lanes()),
        size_(block.residual.cols),
        group_size_(block.grid.GroupSizeFor(size_)),
        residual_(buffer),
        steps_(residual_ + size_ * width_),
        before_(steps_ + size_ * width_),
        moment_(before_ + size_ * width_),
        scales_(moment_ + size_ * width_),
        zeros_(scales_ + size_ * width_) {
    if (rows < width_) {
      std::fill_n(buffer, 6 * size_ * width_, 0.0f);
      std::fill_n(scales_, size_ * width_, 1.0f);
    }
  }

  void Run(double* gain) {
    LoadRows();
    for (int pass = 0; pass < block_.passes; ++pass) {
      const bool last = pass == block_.passes - 1;
      for (int64_t g = 0; g < size_ / group_size_; ++g) {
        if (pass == 0 && block_.refit_scales) RefitScales(g);
        RefineGroup(g, last);
      }
    }
    StoreRows();
    for (int64_t r = 0; r < rows_; ++r) gain[first_ + r] = gain_[r];
  }

 private:
  static constexpr int64_t kMaxRows = kVectors * kMaxLanes;
  // Columns handled together: sums that do not wait for each other, one pass over what follows.
  static constexpr int64_t kAtOnce = 4;

  // What one vector of rows has of a group.
  struct Grid {
    V scale, lowest, highest;
  };

  // Vector v of a column, or of a group, in one of the buffers.
  float* At(float* buffer, int64_t column, int64_t v) const {
    return buffer + column * width_ + v * Lanes();
  }
  V Load(const float* from) const { return hn::LoadU(D(), from); }

  void LoadRows() {
    LoadTile(
        rows_, size_, width_, [&](int64_t r) { return block_.residual.Row(first_ + r); },
        residual_);
    LoadTile(
        rows_, size_, width_,
        [&](int64_t r) { return block_.codes + (first_ + r) * block_.code_stride; }, steps_);
    for (int64_t g = 0; g < size_ / group_size_; ++g) {
      for (int64_t r = 0; r < rows_; ++r) {
        scales_[g * width_ + r] = block_.scales.Row(first_ + r)[g];
        zeros_[g * width_ + r] = block_.grid.symmetric ? SymmetricZero(block_.grid.bits)
                                                       : block_.zeros.Row(first_ + r)[g];
      }
      for (int64_t v = 0; v < kVectors; ++v) {
        const V scale = Load(At(scales_, g, v)), zero = Load(At(zeros_, g, v));
        for (int64_t j = g * group_size_; j < (g + 1) * group_size_; ++j) {
          const V steps = hn::Sub(Load(At(steps_, j, v)), zero);
          hn::StoreU(steps, D(), At(steps_, j, v));
          hn::StoreU(hn::Mul(scale, steps), D(), At(before_, j, v));
        }
      }
    }
  }

  void RefitScales(int64_t g) {
    const int64_t begin = g * group_size_;
    // With one pass the columns before are done.
    const int64_t from = block_.passes == 1 ? begin : 0;
    Moments(from, begin);
    for (int64_t v = 0; v < kVectors; ++v) RefitScale(g, v, from);
  }

  // One pass over a group's codes; after the last one only the columns behind are of interest.
  void RefineGroup(int64_t g, bool last) {
    const D d;
    Grid grid[kVectors];
    V gain[kVectors];  // of the group: few enough terms for F32
    for (int64_t v = 0; v < kVectors; ++v) {
      const V zero = Load(At(zeros_, g, v));
      grid[v] = {Load(At(scales_, g, v)), hn::Neg(zero),
                 hn::Sub(hn::Set(d, LargestCode(block_.grid.bits)), zero)};
      gain[v] = hn::Zero(d);
    }
    const int64_t end = (g + 1) * group_size_;
    int64_t j = g * group_size_;
    for (; j + kAtOnce <= end; j += kAtOnce) RefineCodes<kAtOnce>(j, last, grid, gain);
    for (; j < end; ++j) RefineCodes<1>(j, last, grid, gain);
    for (int64_t v = 0; v < kVectors; ++v) AddGain(v, gain[v]);
  }

  // moment_[i] = sum over the group that begins at `begin` of h[i, j] steps[j], for i >= from.
  void Moments(int64_t from, int64_t begin) {
    int64_t i = from;
    for (; i + kAtOnce <= size_; i += kAtOnce) MomentsOf<kAtOnce>(i, begin);
    for (; i < size_; ++i) MomentsOf<1>(i, begin);
  }

  template <int64_t N>
  HWY_INLINE void MomentsOf(int64_t i, int64_t begin) {
    const D d;
    V sums[N][kVectors];
    const float* h[N];
    for (int64_t n = 0; n < N; ++n) {
      h[n] = block_.h.Row(i + n);
      for (int64_t v = 0; v < kVectors; ++v) sums[n][v] = hn::Zero(d);
    }
    for (int64_t j = begin; j < begin + group_size_; ++j) {
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

  // Least squares for the scales of vector v, where that helps; the residuals from column `from` on
  // follow.
  void RefitScale(int64_t g, int64_t v, int64_t from) {
    const D d;
    const int64_t begin = g * group_size_, end = begin + group_size_;
    const V scale = Load(At(scales_, g, v));
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
    for (int64_t i = from; i < size_; ++i) {
      float* at = At(residual_, i, v);
      hn::StoreU(hn::NegMulAdd(difference, Load(At(moment_, i, v)), Load(at)), d, at);
    }
    hn::StoreU(hn::IfThenElse(helps, Load(fitted), scale), d, At(scales_, g, v));
  }

  // Codes j to j + N - 1, one after the other; the residuals follow in one go, with the columns of
  // which some row moved. In later passes there are few.
  template <int64_t N>
  HWY_INLINE void RefineCodes(int64_t j, bool last, const Grid (&grid)[kVectors],
                              V (&gain)[kVectors]) {
    const D d;
    V residual[N][kVectors], moves[N][kVectors];
    const float* h[N];
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t v = 0; v < kVectors; ++v) residual[i][v] = Load(At(residual_, j + i, v));
    }
    int64_t count = 0;
    for (int64_t i = 0; i < N; ++i) {
      const float* row = block_.h.Row(j + i);
      const V here = hn::Set(d, row[j + i]);
      bool none = true;
      for (int64_t v = 0; v < kVectors; ++v) {
        const auto& [scale, lowest, highest] = grid[v];
        const V r = residual[i][v];
        const V steps = Load(At(steps_, j + i, v));
        const V target = hn::Add(steps, hn::Div(r, hn::Mul(here, scale)));
        const V best = hn::Min(hn::Max(hn::Round(target), lowest), highest);
        const V move = hn::Mul(scale, hn::Sub(best, steps));
        none = none && hn::AllTrue(d, hn::Eq(best, steps));
        gain[v] = hn::MulAdd(move, hn::NegMulAdd(move, here, hn::Add(r, r)), gain[v]);
        hn::StoreU(best, d, At(steps_, j + i, v));
        moves[count][v] = move;
        for (int64_t k = i + 1; k < N; ++k) {
          residual[k][v] = hn::NegMulAdd(move, hn::Set(d, row[j + k]), residual[k][v]);
        }
      }
      h[count] = row;
      count += none ? 0 : 1;
    }
    const int64_t from = last ? j + N : 0;
    if (count == N) {
      Follow<N>(from, h, moves);
    } else {
      if (count & 2) Follow<2>(from, h, moves);
      if (count & 1) Follow<1>(from, h + (count & 2), moves + (count & 2));
    }
  }

  // Takes N columns' moves off the residuals from column `from` on.
  template <int64_t N>
  HWY_INLINE void Follow(int64_t from, const float* const* h, const V (*moves)[kVectors]) {
    const D d;
    for (int64_t k = from; k < size_; ++k) {
      V rest[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) rest[v] = Load(At(residual_, k, v));
      for (int64_t i = 0; i < N; ++i) {
        const V here = hn::Set(d, h[i][k]);
        for (int64_t v = 0; v < kVectors; ++v) rest[v] = hn::NegMulAdd(moves[i][v], here, rest[v]);
      }
      for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(rest[v], d, At(residual_, k, v));
    }
  }

  void AddGain(int64_t v, V gain) {
    float lanes[kMaxLanes];
    hn::StoreU(gain, D(), lanes);
    for (int64_t r = 0; r < Lanes(); ++r) gain_[v * Lanes() + r] += lanes[r];
  }

  // steps_ become codes, before_ becomes the change.
  void StoreRows() {
    for (int64_t g = 0; g < size_ / group_size_; ++g) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const V scale = Load(At(scales_, g, v)), zero = Load(At(zeros_, g, v));
        for (int64_t j = g * group_size_; j < (g + 1) * group_size_; ++j) {
          const V steps = Load(At(steps_, j, v));
          const V change = hn::Sub(hn::Mul(scale, steps), Load(At(before_, j, v)));
          hn::StoreU(change, D(), At(before_, j, v));
          hn::StoreU(hn::Add(steps, zero), D(), At(steps_, j, v));
        }
      }
      for (int64_t r = 0; r < rows_ && block_.refit_scales; ++r) {
        block_.scales.Row(first_ + r)[g] = scales_[g * width_ + r];
      }
    }
    StoreTile(steps_, rows_, size_, width_,
              [&](int64_t r) { return block_.codes + (first_ + r) * block_.code_stride; });
    StoreTile(before_, rows_, size_, width_,
              [&](int64_t r) { return block_.change.Row(first_ + r); });
  }

  const RefinementBlock& block_;
  const int64_t first_, rows_;
  const int64_t width_;  // rows a tile has room for
  const int64_t size_, group_size_;
  float* const residual_;  // [B][width], as the next three
  float* const steps_;     // code - zero, then the codes
  float* const before_;    // values before, then what changed
  float* const moment_;
  float* const scales_;  // [groups][width], as the next
  float* const zeros_;
  double gain_[kMaxRows] = {};
};

void RefineRows(const RefinementBlock& block, int64_t begin, int64_t end, float* buffer,
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

absl::Status CpuDevice::RefineBlock(const RefinementBlock& block, absl::Span<double> gain) {
  pool_.ParallelForBlocks(block.residual.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    float* buffer = ThreadBuffer(6 * block.residual.cols * kRowsPerTask);
    HWY_DYNAMIC_DISPATCH(RefineRows)(block, begin, end, buffer, gain.data());
  });
  return absl::OkStatus();
}

}  // namespace lwq
#endif  // HWY_ONCE
