// Scales by search. For fixed codes the weighted squared error is a quadratic in a sub-block's step
// and offset, and, summed over the block, in the F16 scale and minimum that multiply the whole
// numbers; so every choice of codes brings its best scales in closed form, and the search goes over
// ways to choose codes:
//
//   1. per sub-block, steps and offsets from ranges a little narrower or wider than the values';
//   2. the block's F16 scale and minimum, from several ways to spread the whole multiples;
//   3. in turn: each sub-block's multiples and those beside them, with the codes that they bring;
//      then scale and minimum refitted to all codes; while it helps.
#include "worker/engine/gguf/search_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/engine/gguf/reference_fit.h"

namespace lwq {
namespace {

constexpr int kMaxRounds = 4;

// Weighted sums over a sub-block: importance w, value x, level l of the code.
struct Moments {
  double w = 0, x = 0, xx = 0;
  double l = 0, ll = 0, xl = 0;

  // Sum of w (x - (step l - offset))^2.
  double Error(double step, double offset) const {
    return xx + step * (step * ll - 2 * xl - 2 * offset * l) + offset * (offset * w + 2 * x);
  }
};

struct SubBlock {
  const float* x;
  const float* w;
  float wx[kMaxGgufBlock];
  Moments moments;  // those of w and x; the levels' are of the codes under study
  float step = 0;   // the best found, any real numbers
  float offset = 0;
};

class BlockSearch {
 public:
  BlockSearch(const GgufTypeDef& type, const LevelSet& levels, const float* values,
              const float* importance);
  void Run(GgufBlock* block);

 private:
  bool has_min() const { return shape_.max_sub_min > 0; }
  Moments RoundedMoments(const SubBlock& sub, float step, float offset) const;
  bool BestLine(const Moments& m, float* step, float* offset) const;
  float OffsetFor(const Moments& m, float step) const;
  void Consider(SubBlock* sub, float step, float offset, double* best) const;
  void SearchSymmetric(SubBlock* sub) const;
  void SearchRange(SubBlock* sub) const;
  void ChooseScale(GgufBlock* block) const;
  void ChooseMin(GgufBlock* block) const;
  double ChooseMultiples(GgufBlock* block);
  void RefitBlock(GgufBlock* block) const;

  const GgufTypeDef& type_;
  const GgufBlockShape& shape_;
  const LevelSet& levels_;
  const int size_;
  SubBlock subs_[kMaxGgufSubBlocks];
};

BlockSearch::BlockSearch(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                         const float* importance)
    : type_(type), shape_(*type.shape), levels_(levels), size_(type.sub_block_size()) {
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    SubBlock& sub = subs_[j];
    sub.x = values + j * size_;
    sub.w = importance + j * size_;
    for (int i = 0; i < size_; ++i) {
      sub.wx[i] = sub.w[i] * sub.x[i];
      sub.moments.w += sub.w[i];
      sub.moments.x += sub.wx[i];
      sub.moments.xx += double{sub.wx[i]} * sub.x[i];
    }
  }
}

// The sums with the levels nearest under `step` and `offset`.
Moments BlockSearch::RoundedMoments(const SubBlock& sub, float step, float offset) const {
  constexpr int kLanes = 4;  // partial sums, in a fixed order
  float levels[kMaxGgufBlock];
  levels_.Round(sub.x, sub.w, size_, InverseStep(step), offset, levels);
  float l[kLanes] = {}, ll[kLanes] = {}, xl[kLanes] = {};
  for (int i = 0; i < size_; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float level = levels[i + k];
      const float weighted = sub.w[i + k] * level;
      l[k] += weighted;
      ll[k] += weighted * level;
      xl[k] += sub.wx[i + k] * level;
    }
  }
  Moments m = sub.moments;
  m.l = (l[0] + l[1]) + (l[2] + l[3]);
  m.ll = (ll[0] + ll[1]) + (ll[2] + ll[3]);
  m.xl = (xl[0] + xl[1]) + (xl[2] + xl[3]);
  return m;
}

// The step and offset of least error for these codes; false when the codes do not tell.
bool BlockSearch::BestLine(const Moments& m, float* step, float* offset) const {
  if (m.ll <= 0) return false;
  double s = m.xl / m.ll;
  double o = 0;
  if (has_min()) {
    const double determinant = m.w * m.ll - m.l * m.l;
    if (determinant > 1e-6 * m.w * m.ll) {
      const double free_step = (m.w * m.xl - m.x * m.l) / determinant;
      const double free_offset = (free_step * m.l - m.x) / m.w;
      if (shape_.min_has_sign || free_offset > 0) {
        s = free_step;
        o = free_offset;
      }
    }
    if (s <= 0) return false;
  }
  *step = static_cast<float>(s);
  *offset = static_cast<float>(o);
  return true;
}

// Takes the codes under `step` and `offset`, and keeps the line that fits them if it is the best.
void BlockSearch::Consider(SubBlock* sub, float step, float offset, double* best) const {
  const Moments m = RoundedMoments(*sub, step, offset);
  if (!BestLine(m, &step, &offset)) return;
  const double error = m.Error(step, offset);
  if (error >= *best) return;
  *best = error;
  sub->step = step;
  sub->offset = offset;
}

// Levels on both sides of zero, and no minimum: the largest magnitude goes to the lowest or the
// highest level or somewhat beyond.
void BlockSearch::SearchSymmetric(SubBlock* sub) const {
  float largest = 0;
  for (int i = 0; i < size_; ++i) {
    if (sub->w[i] > 0 && std::abs(sub->x[i]) > std::abs(largest)) largest = sub->x[i];
  }
  if (largest == 0) return;
  const float unit = (levels_.last() - levels_.first()) / static_cast<float>(levels_.size() - 1);
  double best = std::numeric_limits<double>::infinity();
  // Rounding to a codebook takes long, and a quarter of the lines leaves an error .2 % higher.
  const bool has_codebook = levels_.codebook() != nullptr;
  const int apart = has_codebook ? 3 : 1, last = has_codebook ? 9 : 16;
  for (const float side : {levels_.first(), levels_.last()}) {
    // Its signs are apart, and its steps all above zero.
    if (has_codebook && (side < 0) != (largest < 0)) continue;
    for (int k = -3; k <= last; k += apart) {
      const float beyond =
          k <= 8 ? 0.25f * static_cast<float>(k) : 0.5f * static_cast<float>(k - 4);
      const float level = side + (side < 0 ? -beyond : beyond) * unit;
      Consider(sub, largest / level, 0, &best);
    }
  }
  for (int round = 0; round < kMaxRounds; ++round) {
    const double before = best;
    Consider(sub, sub->step, 0, &best);
    if (best >= before) break;
  }
}

// Levels from zero on, and a minimum: from ranges inside and around that of the values.
void BlockSearch::SearchRange(SubBlock* sub) const {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  for (int i = 0; i < size_; ++i) {
    if (sub->w[i] <= 0) continue;
    low = std::min(low, sub->x[i]);
    high = std::max(high, sub->x[i]);
  }
  if (!shape_.min_has_sign) low = std::min(low, 0.0f);
  sub->offset = -low;
  const float unit = (high - low) / levels_.last();
  if (!(unit > 0)) return;
  double best = std::numeric_limits<double>::infinity();
  for (int a = -1; a <= 3; ++a) {
    for (int b = -1; b <= 3; ++b) {
      const float from = low + 0.3f * static_cast<float>(a) * unit;
      const float to = high - 0.3f * static_cast<float>(b) * unit;
      Consider(sub, (to - from) / levels_.last(), -from, &best);
    }
  }
  for (int round = 0; round < kMaxRounds; ++round) {
    const double before = best;
    Consider(sub, sub->step, sub->offset, &best);
    if (best >= before) break;
  }
}

int NearestMultiple(float value, float unit, int max) {
  const float multiple = std::nearbyint(value * InverseStep(unit));
  return static_cast<int>(std::clamp(multiple, 0.0f, static_cast<float>(max)));
}

// The best offset under `step`, for the codes of `m`.
float BlockSearch::OffsetFor(const Moments& m, float step) const {
  if (!has_min()) return 0;
  const float offset = static_cast<float>((step * m.l - m.x) / m.w);
  return shape_.min_has_sign ? offset : std::max(offset, 0.0f);
}

// The F16 scale and the sub-blocks' multiples of it, offsets still free.
void BlockSearch::ChooseScale(GgufBlock* block) const {
  float largest = 0;
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    if (std::abs(subs_[j].step) > std::abs(largest)) largest = subs_[j].step;
  }
  double best = std::numeric_limits<double>::infinity();
  const auto consider = [&](float reach) {
    GgufBlock tried = *block;
    tried.scale = ToFiniteF16(largest / reach);
    double error = 0;
    for (int j = 0; j < shape_.sub_blocks; ++j) {
      const SubBlock& sub = subs_[j];
      tried.sub_scales[j] =
          static_cast<int8_t>(NearestSubScale(shape_, sub.step, F16ToFloat(tried.scale)));
      error += sub.moments.Error(tried.Step(j), OffsetFor(sub.moments, tried.Step(j)));
    }
    if (error >= best) return;
    best = error;
    *block = tried;
  };
  if (shape_.sub_blocks == 1) return consider(1);
  const float unit = static_cast<float>(shape_.max_sub_scale) / 62;
  for (int k = -2; k <= 12; ++k) {
    const float less = unit * static_cast<float>(k);
    consider(static_cast<float>(shape_.max_sub_scale) - less);
    if (shape_.min_sub_scale < 0) consider(static_cast<float>(shape_.min_sub_scale) + less);
  }
}

// The F16 minimum and the multiples of it, given the steps.
void BlockSearch::ChooseMin(GgufBlock* block) const {
  float offsets[kMaxGgufSubBlocks];
  float largest = 0;
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    offsets[j] = OffsetFor(subs_[j].moments, block->Step(j));
    if (std::abs(offsets[j]) > std::abs(largest)) largest = offsets[j];
  }
  double best = std::numeric_limits<double>::infinity();
  const float unit = static_cast<float>(shape_.max_sub_min) / 62;
  for (int k = -2; k <= (shape_.max_sub_min > 1 ? 12 : -2); ++k) {
    const float reach = shape_.max_sub_min > 1
                            ? static_cast<float>(shape_.max_sub_min) - unit * static_cast<float>(k)
                            : 1.0f;
    GgufBlock tried = *block;
    tried.min = ToFiniteF16(largest / reach);
    double error = 0;
    for (int j = 0; j < shape_.sub_blocks; ++j) {
      tried.sub_mins[j] = static_cast<uint8_t>(
          NearestMultiple(offsets[j], F16ToFloat(tried.min), shape_.max_sub_min));
      error += subs_[j].moments.Error(tried.Step(j), tried.Offset(j));
    }
    if (error >= best) continue;
    best = error;
    *block = tried;
  }
}

// For each sub-block the best of its multiples and those beside them, each with its own codes.
// Returns the block's error.
double BlockSearch::ChooseMultiples(GgufBlock* block) {
  double total = 0;
  const int reach = shape_.sub_blocks > 1 ? 1 : 0;
  const int min_reach = has_min() && shape_.max_sub_min > 1 ? 1 : 0;
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    GgufBlock tried = *block;
    GgufBlock kept = *block;
    double best = std::numeric_limits<double>::infinity();
    for (int a = -reach; a <= reach; ++a) {
      for (int b = -min_reach; b <= min_reach; ++b) {
        tried.sub_scales[j] =
            static_cast<int8_t>(std::clamp(block->sub_scales[j] + a * shape_.sub_scale_step,
                                           shape_.min_sub_scale, shape_.max_sub_scale));
        tried.sub_mins[j] =
            static_cast<uint8_t>(std::clamp(block->sub_mins[j] + b, 0, shape_.max_sub_min));
        const Moments m = RoundedMoments(subs_[j], tried.Step(j), tried.Offset(j));
        const double error = m.Error(tried.Step(j), tried.Offset(j));
        if (error >= best) continue;
        best = error;
        subs_[j].moments = m;
        kept = tried;
      }
    }
    *block = kept;
    total += best;
  }
  return total;
}

// Scale and minimum of least error for the multiples and codes as they are.
void BlockSearch::RefitBlock(GgufBlock* block) const {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    const Moments& m = subs_[j].moments;
    const double scale = block->sub_scales[j], min = block->sub_mins[j];
    aa += scale * scale * m.ll;
    ab += scale * min * m.l;
    bb += min * min * m.w;
    ax += scale * m.xl;
    bx += min * m.x;
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-9 * aa * bb) {
    block->scale = ToFiniteF16(static_cast<float>((bb * ax - ab * bx) / determinant));
    block->min = ToFiniteF16(static_cast<float>((ab * ax - aa * bx) / determinant));
  } else if (aa > 0) {
    block->scale = ToFiniteF16(static_cast<float>((ax + ab * F16ToFloat(block->min)) / aa));
  }
}

void BlockSearch::Run(GgufBlock* block) {
  *block = GgufBlock();
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    if (has_min()) {
      SearchRange(&subs_[j]);
    } else {
      SearchSymmetric(&subs_[j]);
    }
    subs_[j].moments = RoundedMoments(subs_[j], subs_[j].step, subs_[j].offset);
  }
  ChooseScale(block);
  if (has_min()) ChooseMin(block);
  double best = std::numeric_limits<double>::infinity();
  GgufBlock tried = *block;
  for (int round = 0; round < kMaxRounds; ++round) {
    const double error = ChooseMultiples(&tried);
    if (error >= best) break;
    best = error;
    *block = tried;
    RefitBlock(&tried);
  }
}

}  // namespace

void FitBySearch(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                 const float* importance, GgufBlock* block) {
  BlockSearch(type, levels, values, importance).Run(block);
  RoundCodes(type, levels, values, importance, block);
}

}  // namespace lwq
