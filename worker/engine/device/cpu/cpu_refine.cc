// RefineBlock on the CPU, vectorised with the instruction set chosen at run time. As in GptqBlock,
// one vector holds the same column of several rows, on tiles transposed into a small buffer: every
// row then takes its own steps without a scalar part.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/scale_grid.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/device/cpu/cpu_refine.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "worker/engine/device/cpu/row_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 rows at a time, what a task's buffer has room for.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

// Some rows of a block, one a lane. Lanes without a row hold zeros and a scale of one.
class RefinementTile {
 public:
  // `buffer`: 4 x B vectors.
  RefinementTile(const RefinementBlock& block, int64_t first, int64_t rows, float* buffer)
      : block_(block),
        first_(first),
        rows_(rows),
        size_(block.residual.cols),
        group_size_(block.grid.GroupSizeFor(size_)),
        residual_(buffer),
        steps_(residual_ + size_ * kLanes),
        before_(steps_ + size_ * kLanes),
        moment_(before_ + size_ * kLanes) {
    std::fill(buffer, buffer + 4 * size_ * kLanes, 0.0f);
    LoadTile(
        rows, size_, kLanes, [&](int64_t r) { return block.residual.Row(first + r); }, residual_);
  }

  void Run(double* gain) {
    for (int64_t g = 0; g < size_ / group_size_; ++g) RefineGroup(g);
    StoreRows();
    for (int64_t r = 0; r < rows_; ++r) gain[first_ + r] = gain_[r];
  }

 private:
  static constexpr int64_t kLanes = 16;  // room for a vector, whatever the instruction set
  // Columns handled together: sums that do not wait for each other, one pass over what follows.
  static constexpr int64_t kAtOnce = 4;

  V Load(const float* column) const { return hn::LoadU(D(), column); }

  void RefineGroup(int64_t g) {
    const D d;
    const int64_t begin = g * group_size_, end = begin + group_size_;
    float scales[kLanes], zeros[kLanes] = {};
    std::fill_n(scales, kLanes, 1.0f);
    for (int64_t r = 0; r < rows_; ++r) {
      scales[r] = block_.scales.Row(first_ + r)[g];
      zeros[r] =
          block_.grid.symmetric ? SymmetricZero(block_.grid.bits) : block_.zeros.Row(first_ + r)[g];
    }
    LoadTile(
        rows_, group_size_, kLanes,
        [&](int64_t r) { return block_.codes + (first_ + r) * block_.code_stride + begin; },
        steps_ + begin * kLanes);
    V scale = hn::LoadU(d, scales);
    const V zero = hn::LoadU(d, zeros);
    for (int64_t j = begin; j < end; ++j) {
      const V steps = hn::Sub(Load(steps_ + j * kLanes), zero);
      hn::StoreU(steps, d, steps_ + j * kLanes);
      hn::StoreU(hn::Mul(scale, steps), d, before_ + j * kLanes);
    }
    if (block_.refit_scales) {
      scale = RefitScale(begin, end, scale);
      hn::StoreU(scale, d, scales);
      for (int64_t r = 0; r < rows_; ++r) block_.scales.Row(first_ + r)[g] = scales[r];
    }
    const V lowest = hn::Neg(zero);
    const V highest = hn::Add(hn::Set(d, LargestCode(block_.grid.bits)), lowest);
    V gain = hn::Zero(d);  // of the group: few enough terms for F32
    int64_t j = begin;
    for (; j + kAtOnce <= end; j += kAtOnce) RefineCodes<kAtOnce>(j, scale, lowest, highest, gain);
    for (; j < end; ++j) RefineCodes<1>(j, scale, lowest, highest, gain);
    AddGain(gain);
    for (j = begin; j < end; ++j) {  // before_ becomes the change
      const V after = hn::Mul(scale, Load(steps_ + j * kLanes));
      hn::StoreU(hn::Sub(after, Load(before_ + j * kLanes)), d, before_ + j * kLanes);
      // steps_ become codes.
      hn::StoreU(hn::Add(Load(steps_ + j * kLanes), zero), d, steps_ + j * kLanes);
    }
  }

  // moment_[i] = sum over the group of h[i, j] steps[j], for the columns from `begin` on: the ones
  // before are done.
  void Moments(int64_t begin, int64_t end) {
    const D d;
    int64_t i = begin;
    static_assert(kAtOnce == 4);
    for (; i + kAtOnce <= size_; i += kAtOnce) {
      V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
      const float *h0 = block_.h.Row(i), *h1 = block_.h.Row(i + 1);
      const float *h2 = block_.h.Row(i + 2), *h3 = block_.h.Row(i + 3);
      for (int64_t j = begin; j < end; ++j) {
        const V step = Load(steps_ + j * kLanes);
        s0 = hn::MulAdd(hn::Set(d, h0[j]), step, s0);
        s1 = hn::MulAdd(hn::Set(d, h1[j]), step, s1);
        s2 = hn::MulAdd(hn::Set(d, h2[j]), step, s2);
        s3 = hn::MulAdd(hn::Set(d, h3[j]), step, s3);
      }
      hn::StoreU(s0, d, moment_ + i * kLanes);
      hn::StoreU(s1, d, moment_ + (i + 1) * kLanes);
      hn::StoreU(s2, d, moment_ + (i + 2) * kLanes);
      hn::StoreU(s3, d, moment_ + (i + 3) * kLanes);
    }
    for (; i < size_; ++i) {
      V sum = hn::Zero(d);
      for (int64_t j = begin; j < end; ++j) {
        sum = hn::MulAdd(hn::Set(d, block_.h.Row(i)[j]), Load(steps_ + j * kLanes), sum);
      }
      hn::StoreU(sum, d, moment_ + i * kLanes);
    }
  }

  // The scales after least squares, where that helps; the residual follows.
  V RefitScale(int64_t begin, int64_t end, V scale) {
    const D d;
    Moments(begin, end);
    V cross = hn::Zero(d), square = hn::Zero(d);
    for (int64_t j = begin; j < end; ++j) {
      const V step = Load(steps_ + j * kLanes);
      cross = hn::MulAdd(Load(residual_ + j * kLanes), step, cross);
      square = hn::MulAdd(Load(moment_ + j * kLanes), step, square);
    }
    const auto any = hn::Gt(square, hn::Zero(d));
    float fitted[kLanes] = {};
    hn::StoreU(hn::Add(scale, hn::Div(cross, hn::IfThenElse(any, square, hn::Set(d, 1.0f)))), d,
               fitted);
    for (int64_t r = 0; r < rows_; ++r) fitted[r] = SnapScale(fitted[r]);
    V difference = hn::IfThenElseZero(any, hn::Sub(hn::LoadU(d, fitted), scale));
    const V gain = hn::Mul(difference, hn::NegMulAdd(difference, square, hn::Add(cross, cross)));
    const auto helps = hn::Gt(gain, hn::Zero(d));
    AddGain(hn::IfThenElseZero(helps, gain));
    difference = hn::IfThenElseZero(helps, difference);
    for (int64_t i = begin; i < size_; ++i) {
      float* at = residual_ + i * kLanes;
      hn::StoreU(hn::NegMulAdd(difference, Load(moment_ + i * kLanes), Load(at)), d, at);
    }
    return hn::IfThenElse(helps, hn::LoadU(d, fitted), scale);
  }

  // Codes j to j + N - 1, one after the other; the residuals behind them follow in one pass.
  template <int64_t N>
  HWY_INLINE void RefineCodes(int64_t j, V scale, V lowest, V highest, V& gain) {
    const D d;
    V residual[N], difference[N];
    const float* h[N];
    for (int64_t i = 0; i < N; ++i) {
      residual[i] = Load(residual_ + (j + i) * kLanes);
      h[i] = block_.h.Row(j + i);
    }
    auto moved = hn::Lt(scale, scale);  // none
    for (int64_t i = 0; i < N; ++i) {
      const V steps = Load(steps_ + (j + i) * kLanes);
      const V here = hn::Set(d, h[i][j + i]);
      const V target = hn::Add(steps, hn::Div(residual[i], hn::Mul(here, scale)));
      const V best = hn::Min(hn::Max(hn::Round(target), lowest), highest);
      difference[i] = hn::Mul(scale, hn::Sub(best, steps));
      moved = hn::Or(moved, hn::Ne(best, steps));
      gain =
          hn::MulAdd(difference[i],
                     hn::NegMulAdd(difference[i], here, hn::Add(residual[i], residual[i])), gain);
      hn::StoreU(best, d, steps_ + (j + i) * kLanes);
      for (int64_t k = i + 1; k < N; ++k) {
        residual[k] = hn::NegMulAdd(difference[i], hn::Set(d, h[i][j + k]), residual[k]);
      }
    }
    if (hn::AllFalse(d, moved)) return;
    for (int64_t k = j + N; k < size_; ++k) {
      float* at = residual_ + k * kLanes;
      V rest = Load(at);
      for (int64_t i = 0; i < N; ++i) {
        rest = hn::NegMulAdd(difference[i], hn::Set(d, h[i][k]), rest);
      }
      hn::StoreU(rest, d, at);
    }
  }

  void AddGain(V gain) {
    float lanes[kLanes] = {};
    hn::StoreU(gain, D(), lanes);
    for (int64_t r = 0; r < rows_; ++r) gain_[r] += lanes[r];
  }

  void StoreRows() {
    StoreTile(steps_, rows_, size_, kLanes,
              [&](int64_t r) { return block_.codes + (first_ + r) * block_.code_stride; });
    StoreTile(before_, rows_, size_, kLanes,
              [&](int64_t r) { return block_.change.Row(first_ + r); });
  }

  const RefinementBlock& block_;
  const int64_t first_, rows_, size_, group_size_;
  float* const residual_;  // [B][lanes], as the next three
  float* const steps_;     // code - zero, then the codes
  float* const before_;    // values before, then what changed
  float* const moment_;
  double gain_[kLanes] = {};
};

void RefineRows(const RefinementBlock& block, int64_t begin, int64_t end, float* buffer,
                double* gain) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
  for (int64_t first = begin; first < end; first += lanes) {
    RefinementTile(block, first, std::min(lanes, end - first), buffer).Run(gain);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwq {
namespace {

HWY_EXPORT(RefineRows);

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kMaxLanes = 16;

}  // namespace

absl::Status CpuDevice::RefineBlock(const RefinementBlock& block, absl::Span<double> gain) {
  pool_.ParallelForBlocks(block.residual.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer(4 * block.residual.cols * kMaxLanes);
    HWY_DYNAMIC_DISPATCH(RefineRows)(block, begin, end, buffer.data(), gain.data());
  });
  return absl::OkStatus();
}

}  // namespace lwq
#endif  // HWY_ONCE
