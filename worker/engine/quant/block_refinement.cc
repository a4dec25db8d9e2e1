// For a change x of a row of q the error changes by x H x^T - 2 x r, r being the residual
// (w - q) H. A single value is best moved by r_i / H_ii; a step and an offset, which move a
// sub-block's values by (da levels - db), have a minimum of two unknowns; so have the F16 scale and
// minimum, which move the whole block. What is found is rounded to what the type can store, and
// judged as it is stored.
//
// A sub-block's codes go with its scale: a line is tried by moving every value onto it one after
// the other, each making up for those before it, and once more.
#include "worker/engine/quant/block_refinement.h"

#include <algorithm>
#include <cmath>

namespace lwq {
namespace {

constexpr int kPasses = 2;
constexpr size_t kTriedLines = 4;
constexpr size_t kTriedLinesOfCells = 2;

// The nearest of min, min + step, ... max.
int NearestWhole(double value, int min, int max, int step = 1) {
  if (!(std::abs(value) < 1e6)) return value > 0 ? max : min;
  if (step == 1) return std::clamp(static_cast<int>(std::lround(value)), min, max);
  return std::clamp(min + step * static_cast<int>(std::lround((value - min) / step)), min, max);
}

}  // namespace

BlockRefinement::BlockRefinement(const GgufTypeDef& type, ConstMatrixView h, int64_t first,
                                 float* residual, GgufBlock* block)
    : type_(type),
      shape_(*type.shape),
      levels_(shape_),
      size_(type.sub_block_size()),
      h_(h),
      first_(first),
      residual_(residual),
      block_(*block) {
  for (int i = 0; i < type.block_size; ++i) values_[i] = StoredValue(type, *block, i);
}

void BlockRefinement::SetValue(int i, float value) {
  const float change = value - values_[i];
  values_[i] = value;
  const float* row = h_.Row(first_ + i);
  for (int64_t k = 0; k < h_.cols; ++k) residual_[k] -= change * row[k];
}

double BlockRefinement::MoveCodes() {
  if (levels_.codebook() != nullptr) return MoveCells();
  const BlockGrid grid(type_, block_);
  double total = 0;
  for (int i = 0; i < type_.block_size; ++i) {
    const float diagonal = H(i, i);
    if (!(diagonal > 0)) continue;
    const float residual = residual_[first_ + i];
    const BlockGrid::Rounded best = grid.Round(i, values_[i] + residual / diagonal);
    const double change = double{best.value} - values_[i];
    const double gain = change * (2.0 * residual - change * diagonal);
    if (!(gain > 0)) continue;
    total += gain;
    block_.codes[i] = best.code;
    SetValue(i, best.value);
  }
  return total;
}

double BlockRefinement::MoveCells() {
  const Codebook& codebook = *levels_.codebook();
  const int cell = codebook.cell_size();
  double total = 0;
  for (int begin = 0; begin < type_.block_size; begin += cell) {
    const int64_t at = first_ + begin;
    const double gain = codebook.Move(block_.Step(begin / size_), h_.Row(at) + at, h_.stride,
                                      residual_ + at, block_.codes + begin);
    if (!(gain > 0)) continue;
    total += gain;
    for (int i = begin; i < begin + cell; ++i) {
      const float value = StoredValue(type_, block_, i);
      if (value != values_[i]) SetValue(i, value);
    }
  }
  return total;
}

double BlockRefinement::Quadratic::BestStep(bool has_offset) const {
  if (has_offset) {
    const double determinant = ll * one - l1 * l1;
    if (determinant > 1e-6 * ll * one) return (lr * one - r * l1) / determinant;
  }
  return ll > 0 ? lr / ll : 0;
}

BlockRefinement::Quadratic BlockRefinement::QuadraticOf(int sub_block) const {
  Quadratic q;
  const int begin = sub_block * size_;
  for (int i = begin; i < begin + size_; ++i) {
    float level_sum = 0, sum = 0;
    for (int k = begin; k < begin + size_; ++k) {
      level_sum += H(i, k) * static_cast<float>(shape_.levels[block_.codes[k]]);
      sum += H(i, k);
    }
    const double level = shape_.levels[block_.codes[i]];
    q.ll += level * level_sum;
    q.l1 += level_sum;
    q.one += sum;
    q.lr += level * residual_[first_ + i];
    q.r += residual_[first_ + i];
  }
  return q;
}

// Replaces `best` where the line gains more.
void BlockRefinement::TryLine(int sub_block, const Line& line, Trial* best) const {
  // Cells move from the codes that they have: there is no nearest one to begin with.
  if (levels_.codebook() != nullptr) return TryLineFrom(sub_block, line, true, best);
  for (const bool keep_codes : {true, false}) TryLineFrom(sub_block, line, keep_codes, best);
}

void BlockRefinement::TryLineFrom(int sub_block, const Line& line, bool keep_codes,
                                  Trial* best) const {
  Trial trial;
  trial.line = line;
  const float step = line.Step(), offset = line.Offset();
  const float inverse = InverseStep(step);
  const int begin = sub_block * size_;
  float residual[kMaxGgufBlock];
  std::copy_n(residual_ + first_ + begin, size_, residual);
  std::copy_n(values_ + begin, size_, trial.values);
  for (int pass = 0; pass < kPasses; ++pass) {
    if (pass > 0 && levels_.codebook() != nullptr) {
      MoveCellsOnto(begin, step, residual, &trial);
      break;
    }
    for (int i = 0; i < size_; ++i) {
      const float* row = h_.Row(first_ + begin + i) + first_ + begin;
      const float wanted = row[i] > 0 ? residual[i] / row[i] : 0;
      const int code = pass == 0 && keep_codes
                           ? block_.codes[begin + i]
                           : levels_.NearestCode((trial.values[i] + wanted + offset) * inverse);
      const float value =
          step * static_cast<float>(shape_.levels[static_cast<size_t>(code)]) - offset;
      const float change = value - trial.values[i];
      trial.codes[i] = static_cast<uint8_t>(code);
      if (change == 0) continue;
      trial.gain += double{change} * (2.0 * residual[i] - double{change} * row[i]);
      trial.values[i] = value;
      for (int k = 0; k < size_; ++k) residual[k] -= change * row[k];
    }
  }
  if (trial.gain > best->gain) *best = trial;
}

// The cells of the sub-block that begins at value `begin`, once.
void BlockRefinement::MoveCellsOnto(int begin, float step, float* residual, Trial* trial) const {
  const Codebook& codebook = *levels_.codebook();
  const int cell = codebook.cell_size();
  for (int at = 0; at < size_; at += cell) {
    const float* h = h_.Row(first_ + begin + at) + first_ + begin + at;
    const double gain = codebook.Move(step, h, h_.stride, residual + at, trial->codes + at);
    if (!(gain > 0)) continue;
    trial->gain += gain;
    for (int i = at; i < at + cell; ++i) {
      const float value = step * shape_.levels[trial->codes[i]];
      const float change = value - trial->values[i];
      if (change == 0) continue;
      trial->values[i] = value;
      const float* row = h_.Row(first_ + begin + i) + first_ + begin;
      for (int k = 0; k < size_; ++k) residual[k] -= change * row[k];
    }
  }
}

// Whole multiples around those that are and those that would be best.
std::vector<BlockRefinement::Line> BlockRefinement::MultiplesAround(int sub_block,
                                                                    const Quadratic& q) const {
  std::vector<Line> lines;
  const float scale = F16ToFloat(block_.scale), min = F16ToFloat(block_.min);
  const int now = block_.sub_scales[sub_block];
  const int low = shape_.min_sub_scale, high = shape_.max_sub_scale, apart = shape_.sub_scale_step;
  const int wanted = NearestWhole(now + q.BestStep(has_min()) / scale, low, high, apart);
  for (int s = std::max(std::min(now, wanted) - apart, low);
       s <= std::min(std::max(now, wanted) + apart, high); s += apart) {
    if (std::abs(s - now) > apart && std::abs(s - wanted) > apart) continue;
    Line line{block_.scale, block_.min, s, block_.sub_mins[sub_block]};
    lines.push_back(line);
    if (!has_min() || min == 0 || !(q.one > 0)) continue;
    const double change = double{scale} * (s - now);
    const int nearest = NearestWhole(block_.sub_mins[sub_block] + q.BestOffset(change) / min, 0,
                                     shape_.max_sub_min);
    for (int m = nearest - 1; m <= nearest + 1; ++m) {
      line.sub_min = m;
      if (m < 0 || m > shape_.max_sub_min || m == block_.sub_mins[sub_block]) continue;
      lines.push_back(line);
    }
  }
  return lines;
}

// Of those the few that would gain most with the codes as they are.
void BlockRefinement::TryMultiples(int sub_block, Trial* best) const {
  if (F16ToFloat(block_.scale) == 0) return;
  const Quadratic q = QuadraticOf(sub_block);
  const double step = block_.Step(sub_block), offset = block_.Offset(sub_block);
  const auto gain = [&](const Line& line) {
    return q.Gain(line.Step() - step, line.Offset() - offset);
  };
  std::vector<Line> lines = MultiplesAround(sub_block, q);
  std::stable_sort(lines.begin(), lines.end(),
                   [&](const Line& a, const Line& b) { return gain(a) > gain(b); });
  const size_t tried = levels_.codebook() == nullptr ? kTriedLines : kTriedLinesOfCells;
  if (lines.size() > tried) lines.resize(tried);
  for (const Line& line : lines) TryLine(sub_block, line, best);
}

// In a type without multiples: F16 scales around the best one, with the minimum that goes with
// each.
void BlockRefinement::TryScales(Trial* best) const {
  const Quadratic q = QuadraticOf(0);
  const float scale = F16ToFloat(block_.scale);
  const double wanted = scale + q.BestStep(has_min());
  for (int k = -2; k <= 2; ++k) {
    Line line{block_.scale, block_.min, block_.sub_scales[0], block_.sub_mins[0]};
    line.scale = ToFiniteF16(static_cast<float>(wanted * (1 + 0.02 * k)));
    if (has_min() && q.one > 0) {
      const double offset = q.BestOffset(double{F16ToFloat(line.scale)} - scale);
      line.min = ToFiniteF16(static_cast<float>(F16ToFloat(block_.min) + offset));
    }
    TryLine(0, line, best);
  }
}

double BlockRefinement::MoveSubBlock(int sub_block) {
  Trial best;
  if (shape_.sub_blocks > 1) {
    TryMultiples(sub_block, &best);
  } else {
    TryScales(&best);
  }
  if (!(best.gain > 0)) return 0;
  block_.scale = best.line.scale;
  block_.min = best.line.min;
  block_.sub_scales[sub_block] = static_cast<int8_t>(best.line.sub_scale);
  block_.sub_mins[sub_block] = static_cast<uint8_t>(best.line.sub_min);
  const int begin = sub_block * size_;
  for (int i = 0; i < size_; ++i) {
    block_.codes[begin + i] = best.codes[i];
    if (best.values[i] != values_[begin + i]) SetValue(begin + i, best.values[i]);
  }
  return best.gain;
}

// The F16 scale and minimum for all multiples and codes as they are.
double BlockRefinement::MoveBlockScales() {
  const int n = type_.block_size;
  float units[kMaxGgufBlock], mins[kMaxGgufBlock];  // what a scale and a minimum of 1 would give
  for (int i = 0; i < n; ++i) {
    units[i] = static_cast<float>(block_.sub_scales[i / size_] * shape_.levels[block_.codes[i]]);
    mins[i] = static_cast<float>(block_.sub_mins[i / size_]);
  }
  Quadratic q;
  for (int i = 0; i < n; ++i) {
    float unit_sum = 0, min_sum = 0;
    for (int k = 0; k < n; ++k) {
      unit_sum += H(i, k) * units[k];
      min_sum += H(i, k) * mins[k];
    }
    q.ll += double{units[i]} * unit_sum;
    q.l1 += double{mins[i]} * unit_sum;
    q.one += double{mins[i]} * min_sum;
    q.lr += double{units[i]} * residual_[first_ + i];
    q.r += double{mins[i]} * residual_[first_ + i];
  }
  const float scale = F16ToFloat(block_.scale), min = F16ToFloat(block_.min);
  const bool with_min = has_min() && q.one > 0;
  const uint16_t new_scale = ToFiniteF16(static_cast<float>(scale + q.BestStep(with_min)));
  const double scale_change = double{F16ToFloat(new_scale)} - scale;
  uint16_t new_min = block_.min;
  if (with_min) {
    new_min = ToFiniteF16(static_cast<float>(min + q.BestOffset(scale_change)));
  }
  const double min_change = double{F16ToFloat(new_min)} - min;
  const double gain = q.Gain(scale_change, min_change);
  if (!(gain > 0)) return 0;
  block_.scale = new_scale;
  block_.min = new_min;
  for (int i = 0; i < n; ++i) {
    const float value = StoredValue(type_, block_, i);
    if (value != values_[i]) SetValue(i, value);
  }
  return gain;
}

double BlockRefinement::MoveScales() {
  double gain = 0;
  for (int j = 0; j < shape_.sub_blocks; ++j) gain += MoveSubBlock(j);
  return shape_.sub_blocks > 1 ? gain + MoveBlockScales() : gain;
}

}  // namespace lwq
