// How the grid of one group is chosen: the definition that every device follows, in C++17 and
// without absl, because CUDA's kernels read it too. A device brings the two sums over the group (an
// Evaluator); the walk over candidate scales is here, so that all devices try the same candidates.
// Scales have 8 significant bits within [2^-14, 65504]: F16, BF16 and F32 hold them exactly, and
// every engine that loads the weights sees the same values.
//
// The search minimises sum h (w - q)^2 in three stages: a coarse geometric sweep down from the
// scale that covers the whole group, a fine one around its best, then least squares for the codes
// found. Sweeps reach lower at few bits, where clipping the tails pays most.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "worker/engine/device/host_device.h"

namespace lwq {

inline constexpr float kMinScale = 0x1p-14f;
inline constexpr float kMaxScale = 65280.0f;  // the largest 8-bit significand below 65504

// Nearest of the allowed scales, sign kept; NaN and what is too small become the smallest.
LWQ_HOST_DEVICE inline float SnapScale(float scale) {
  if (!(std::abs(scale) > kMinScale)) return std::signbit(scale) ? -kMinScale : kMinScale;
  uint32_t bits;  // rounded to 8 significant bits, ties to even
  memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  memcpy(&scale, &bits, sizeof(scale));
  const float largest = kMaxScale;  // of its own: device code cannot refer to a host constant
  return std::clamp(scale, -largest, largest);
}

struct GridCandidate {
  float scale = kMinScale;
  float zero = 0;
};

LWQ_HOST_DEVICE inline bool operator==(const GridCandidate& a, const GridCandidate& b) {
  return a.scale == b.scale && a.zero == b.zero;
}

// Smallest and largest weight of a group, widened to hold zero.
struct GroupRange {
  float low = 0;
  float high = 0;
};

// Candidates are judged this many at a time: enough independent sums to keep a vector unit busy.
inline constexpr int kCandidateBatch = 4;

LWQ_HOST_DEVICE inline float SymmetricZero(int bits) { return static_cast<float>(1 << (bits - 1)); }
LWQ_HOST_DEVICE inline float LargestCode(int bits) { return static_cast<float>((1 << bits) - 1); }

// Grid: GridSpec, or what has its bits, symmetric and search.
//
// The grid for a range shrunk by `factor`: symmetric grids reach -2^(b-1) and 2^(b-1) - 1 times the
// scale, so the two ends bind differently.
template <typename Grid>
LWQ_HOST_DEVICE GridCandidate ShrunkGrid(const Grid& grid, GroupRange range, float factor) {
  const float half = SymmetricZero(grid.bits);
  if (grid.symmetric) {
    return {SnapScale(factor * std::max(range.high / (half - 1), -range.low / half)), half};
  }
  const float top = LargestCode(grid.bits);
  const float scale = SnapScale(factor * (range.high - range.low) / top);
  return {scale, std::clamp(std::nearbyint(-factor * range.low / scale), 0.0f, top)};
}

// The symmetric grid turned round: from -(2^(b-1) - 1) to 2^(b-1) times the scale's magnitude.
template <typename Grid>
LWQ_HOST_DEVICE GridCandidate MirroredGrid(const Grid& grid, GroupRange range, float factor) {
  GridCandidate mirrored = ShrunkGrid(grid, {-range.high, -range.low}, factor);
  mirrored.scale = -mirrored.scale;
  return mirrored;
}

// Without search. Symmetric: max|w| / (2^(b-1) - 1/2), as GPTQ checkpoints have it; affine:
// min-max.
template <typename Grid>
LWQ_HOST_DEVICE GridCandidate MinMaxGrid(const Grid& grid, GroupRange range) {
  if (!grid.symmetric) return ShrunkGrid(grid, range, 1.0f);
  const float extreme = std::max(range.high, -range.low);
  return {SnapScale(2 * extreme / LargestCode(grid.bits)), SymmetricZero(grid.bits)};
}

// The steps of the search: `steps` factors from 1 down, each `ratio` times the one before, and a
// fourth of a step. Made once a fit, not once a group.
class ShrinkSweep {
 public:
  explicit ShrinkSweep(int bits) {
    float lowest = 0.8f;
    if (bits <= 4) steps = 16, lowest = 0.4f;
    if (bits == 3) steps = 20, lowest = 0.3f;
    if (bits <= 2) steps = 24, lowest = 0.15f;
    ratio = std::pow(lowest, 1.0f / static_cast<float>(steps - 1));
    fine_ratio = std::pow(ratio, 0.25f);
  }

  int steps = 8;
  float ratio;
  float fine_ratio;
};

// Keeps the best candidate so far; candidates equal to the ones pending or to the best are dropped.
template <typename Evaluator>
class GridSearch {
 public:
  LWQ_HOST_DEVICE explicit GridSearch(const Evaluator& evaluator) : evaluator_(evaluator) {}

  LWQ_HOST_DEVICE void Try(const GridCandidate& candidate) {
    if (has_best_ && candidate == best_) return;
    for (int i = 0; i < pending_; ++i) {
      if (batch_[i] == candidate) return;
    }
    batch_[pending_++] = candidate;
    if (pending_ == kCandidateBatch) Flush();
  }

  LWQ_HOST_DEVICE void Flush() {
    if (pending_ == 0) return;
    for (int i = pending_; i < kCandidateBatch; ++i) batch_[i] = batch_[pending_ - 1];
    float errors[kCandidateBatch];
    evaluator_.Errors(batch_, errors);
    for (int i = 0; i < pending_; ++i) {
      if (!has_best_ || errors[i] < best_error_) {
        best_ = batch_[i];
        best_error_ = errors[i];
        has_best_ = true;
      }
    }
    pending_ = 0;
  }

  LWQ_HOST_DEVICE const GridCandidate& best() const { return best_; }

 private:
  const Evaluator& evaluator_;
  GridCandidate batch_[kCandidateBatch];
  int pending_ = 0;
  bool has_best_ = false;
  GridCandidate best_;
  float best_error_ = 0;
};

// Evaluator: void Errors(const GridCandidate (&)[kCandidateBatch], float* errors) const, the
// weighted squared errors; float RefitScale(const GridCandidate&) const, the scale that fits best
// to the codes which the candidate gives, or 0 when all are zero.
template <typename Grid, typename Evaluator>
LWQ_HOST_DEVICE GridCandidate FitGroup(const Grid& grid, const ShrinkSweep& sweep, GroupRange range,
                                       const Evaluator& evaluator) {
  if (range.low == range.high) return {kMinScale, MinMaxGrid(grid, range).zero};
  if (!grid.search) return MinMaxGrid(grid, range);
  GridSearch<Evaluator> search(evaluator);
  search.Try(MinMaxGrid(grid, range));
  float factor = 1;
  // At 8 bits one step more or less on a side is nothing.
  const bool mirror = grid.symmetric && grid.bits < 8;
  for (int i = 0; i < sweep.steps; ++i, factor *= sweep.ratio) {
    search.Try(ShrunkGrid(grid, range, factor));
    if (mirror) search.Try(MirroredGrid(grid, range, factor));
  }
  search.Flush();
  const GridCandidate coarse = search.best();
  const float fine_ratio = sweep.fine_ratio;
  factor = 1 / (fine_ratio * fine_ratio * fine_ratio);
  for (int i = -3; i <= 3; ++i, factor *= fine_ratio) {
    const float scale = SnapScale(coarse.scale * factor);
    search.Try({scale, coarse.zero});
    if (grid.symmetric) continue;
    search.Try({scale, std::max(coarse.zero - 1, 0.0f)});
    search.Try({scale, std::min(coarse.zero + 1, LargestCode(grid.bits))});
  }
  search.Flush();
  for (int i = 0; i < 2; ++i) {
    const GridCandidate before = search.best();
    search.Try({SnapScale(evaluator.RefitScale(before)), before.zero});
    search.Flush();
    if (search.best() == before) break;
  }
  return search.best();
}

}  // namespace lwq
