#include "worker/engine/gguf/codebook.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lwq {
namespace {

constexpr int kNumBytes = 256;
constexpr int kTriedFlips = 3;
// Beyond it every level is the last one, and squares are still finite.
constexpr float kFar = 1e9f;
// With it, sums of kMaxCell such squares are finite too: of infinite costs none is the least.
constexpr float kMostWeight = 1e18f;

float Finite(float v) { return v > -kFar ? (v < kFar ? v : kFar) : -kFar; }

}  // namespace

// A cell on its way to better codes.
struct Codebook::Cell {
  float step;
  const float* h;
  int64_t stride;
  float residual[kMaxCell];
  uint8_t codes[kMaxCell];

  float H(int i, int k) const { return h[i * stride + k]; }
};

Codebook::Codebook(const BlockLayout& layout)
    : book_(layout.codebook),
      levels_(layout.levels),
      even_signs_(layout.codebook.signs.bits == 7),
      half_size_(layout.codebook.point_size / 2),
      by_pattern_(size_t{1} << 16, int16_t{-1}) {
  for (int p = 0; p < book_.num_points; ++p) {
    by_pattern_[book_.points[p]] = static_cast<int16_t>(p);
    const int half = book_.points[p] >> 8;
    if (ranges_.empty() || ranges_.back().half != half) ranges_.push_back({half, p, p});
    ranges_.back().end = p + 1;
  }
  for (size_t r = 0; r < ranges_.size(); ++r) {
    const int nibble = ranges_[r].half >> 4;
    if (groups_.empty() || groups_.back().nibble != nibble) {
      groups_.push_back({nibble, static_cast<int>(r), 0});
    }
    groups_.back().end = static_cast<int>(r) + 1;
  }
  const int bits = 8 / half_size_, mask = (1 << bits) - 1;
  for (int byte = 0; byte < kNumBytes; ++byte) {
    Half half{byte, {}};
    bool exists = true;
    for (int i = 0; i < half_size_; ++i) {
      const int magnitude = byte >> (i * bits) & mask;
      exists = exists && magnitude < book_.magnitudes;
      if (exists) half.magnitudes[i] = levels_[book_.magnitudes + magnitude];
    }
    if (!exists) continue;
    halves_.push_back(half);
  }
}

int Codebook::PointOf(const uint8_t* codes) const {
  const int bits = 16 / book_.point_size, count = book_.magnitudes;
  int pattern = 0;
  for (int i = 0; i < book_.point_size; ++i) {
    const int magnitude = codes[i] < count ? count - 1 - codes[i] : codes[i] - count;
    pattern |= magnitude << (i * bits);
  }
  return by_pattern_[static_cast<size_t>(pattern)];
}

// Bit i of `negative` is the sign of the point's value i.
void Codebook::PutCodes(int point, unsigned negative, uint8_t* codes) const {
  for (int i = 0; i < book_.point_size; ++i) {
    const int code = book_.CodeOf(book_.Magnitude(point, i), (negative >> i & 1) != 0);
    codes[i] = static_cast<uint8_t>(code);
  }
}

// What each nibble of a pattern costs, by its place, and the least of each place. A nibble is one
// of kMagnitudes of 4 bits, or two of 2.
template <int kMagnitudes>
void Codebook::PriceNibbles(const float* v, const float* w, Prices* prices) const {
  float magnitudes[kMagnitudes];
  for (int m = 0; m < kMagnitudes; ++m) magnitudes[m] = levels_[kMagnitudes + m];
  const auto price = [&](int i, float* out) {
    for (int m = 0; m < kMagnitudes; ++m) {
      const float difference = v[i] - magnitudes[m];
      out[m] = w[i] * difference * difference;
    }
  };
  const auto least = [](const float* of) {
    int best = 0;
    for (int m = 1; m < kMagnitudes; ++m) best = of[m] < of[best] ? m : best;
    return best;
  };
  for (int place = 0; place < kPlaces; ++place) {
    float* const out = prices->of[place];
    if constexpr (kMagnitudes == 8) {
      price(place, out);
      prices->nearest[place] = least(out);
    } else {
      float low[kMagnitudes], high[kMagnitudes];
      price(2 * place, low);
      price(2 * place + 1, high);
      for (int m = 0; m < kMagnitudes; ++m) {
        for (int l = 0; l < kMagnitudes; ++l) out[m << 2 | l] = low[l] + high[m];
      }
      prices->nearest[place] = least(high) << 2 | least(low);
    }
  }
}

// The point of least sum of w (v - magnitude)^2, and that sum; -1 where none is below `bound`. A
// `v` below zero is one whose sign is not its own.
float Codebook::RoundPoint(const float* v, const float* w, float bound, int* point) const {
  Prices prices;
  if (book_.magnitudes == 8) {
    PriceNibbles<8>(v, w, &prices);
  } else {
    PriceNibbles<3>(v, w, &prices);
  }
  const auto& of = prices.of;
  const auto& nearest = prices.nearest;
  const int pattern = nearest[0] | nearest[1] << 4 | nearest[2] << 8 | nearest[3] << 12;
  const float least1 = of[0][nearest[0]] + of[1][nearest[1]];
  const float least2 = least1 + of[2][nearest[2]];
  const float least3 = least2 + of[3][nearest[3]];
  *point = -1;
  if (!(least3 < bound)) return bound;
  if (by_pattern_[static_cast<size_t>(pattern)] >= 0) {
    *point = by_pattern_[static_cast<size_t>(pattern)];
    return least3;
  }
  float best = bound;
  const auto look = [&](const Group& group) {
    const float upper = of[3][group.nibble];
    if (upper + least2 >= best) return;
    for (int r = group.begin; r < group.end; ++r) {
      const Range& range = ranges_[static_cast<size_t>(r)];
      const float half = upper + of[2][range.half & 15];
      if (half + least1 >= best) continue;
      for (int p = range.begin; p < range.end; ++p) {
        const int low = book_.points[p];
        const float sum = half + of[1][low >> 4 & 15] + of[0][low & 15];
        if (sum >= best) continue;
        best = sum;
        *point = p;
      }
    }
  };
  // The nearest first, so that most others are seen to be too far.
  for (const Group& group : groups_) {
    if (group.nibble == nearest[3]) look(group);
  }
  for (const Group& group : groups_) look(group);
  return best;
}

// An odd number of signs: the one is flipped, with the point that is then best, that costs least.
// Those are tried whose flips cost least under the points as they are.
void Codebook::FlipOne(const float* v, const float* w, const float* costs, int* points,
                       unsigned* negative) const {
  float price[kMaxCell];
  int order[kMaxCell];
  for (int i = 0; i < kMaxCell; ++i) {
    const int m = book_.Magnitude(points[i / book_.point_size], i % book_.point_size);
    price[i] = w[i] * v[i] * levels_[book_.magnitudes + m];
    order[i] = i;
  }
  std::stable_sort(order, order + kMaxCell, [&](int a, int b) { return price[a] < price[b]; });
  float least = std::numeric_limits<float>::infinity();
  int flipped = order[0], best_point = points[order[0] / book_.point_size];
  for (int n = 0; n < kTriedFlips; ++n) {
    const int i = order[n], at = i / book_.point_size, first = at * book_.point_size;
    float with[kMaxCell] = {};
    std::copy_n(v + first, book_.point_size, with);
    with[i - first] = -with[i - first];
    int point;
    const float more = RoundPoint(with, w + first, costs[at] + least, &point) - costs[at];
    if (point < 0 || more >= least) continue;
    least = more;
    flipped = i;
    best_point = point;
  }
  points[flipped / book_.point_size] = best_point;
  *negative ^= 1u << flipped;
}

void Codebook::Round(const float* v, const float* w, uint8_t* codes) const {
  float magnitudes[kMaxCell], weights[kMaxCell], costs[kMaxCell] = {};
  int points[kMaxCell] = {};
  unsigned negative = 0;
  const int size = cell_size();
  for (int i = 0; i < size; ++i) {
    const float value = Finite(v[i]);
    magnitudes[i] = std::abs(value);
    weights[i] = w[i] > 0 ? std::min(w[i], kMostWeight) : 0;
    negative |= (value < 0 ? 1u : 0u) << i;
  }
  const int count = size / book_.point_size;
  for (int p = 0; p < count; ++p) {
    const int first = p * book_.point_size;
    costs[p] = RoundPoint(magnitudes + first, weights + first,
                          std::numeric_limits<float>::infinity(), &points[p]);
  }
  if (even_signs_ && std::popcount(negative) % 2 != 0) {
    FlipOne(magnitudes, weights, costs, points, &negative);
  }
  for (int p = 0; p < count; ++p) {
    const int first = p * book_.point_size;
    PutCodes(points[p], negative >> first, codes + first);
  }
}

// Of the point at `first` the signs that its values would have alone; with tied signs as many
// negative ones, even or odd, as there are.
unsigned Codebook::WantedSigns(const Cell& cell, int first) const {
  unsigned now = 0, wanted = 0;
  float least = std::numeric_limits<float>::infinity();
  int weakest = 0;
  for (int i = 0; i < book_.point_size; ++i) {
    const int k = first + i;
    const float value = cell.step * levels_[cell.codes[k]], diagonal = cell.H(k, k);
    const float pull = value * diagonal + cell.residual[k];  // towards the best value, times H_kk
    const bool is_negative = cell.codes[k] < book_.magnitudes;
    const bool tells = diagonal > 0 && pull != 0;
    const bool wants_negative = tells ? (pull < 0) != (cell.step < 0) : is_negative;
    now |= (is_negative ? 1u : 0u) << i;
    wanted |= (wants_negative ? 1u : 0u) << i;
    if (std::abs(pull) < least) {
      least = std::abs(pull);
      weakest = i;
    }
  }
  if (even_signs_ && std::popcount(now ^ wanted) % 2 != 0) wanted ^= 1u << weakest;
  return wanted;
}

// All points with these signs; takes the best if what it changes the error by is below `best`.
template <int kHalf>
bool Codebook::TrySigns(const Cell& cell, int first, unsigned negative, float* best,
                        uint8_t* codes) const {
  float cost[2][kNumBytes];
  float change[2][kNumBytes][kHalf];
  for (int side = 0; side < 2; ++side) {
    const int begin = first + side * kHalf;
    for (const Half& half : halves_) {
      float* const d = change[side][half.byte];
      float sum = 0;
      for (int i = 0; i < kHalf; ++i) {
        const int k = begin + i;
        const float sign = (negative >> (k - first) & 1) != 0 ? -1.0f : 1.0f;
        d[i] = cell.step * (sign * half.magnitudes[i] - levels_[cell.codes[k]]);
        float through = 0;
        for (int l = 0; l < i; ++l) through += cell.H(k, begin + l) * d[l];
        sum += d[i] * (2 * (through - cell.residual[k]) + d[i] * cell.H(k, k));
      }
      cost[side][half.byte] = sum;
    }
  }
  int found = -1;
  for (const Range& range : ranges_) {
    const float* const upper = change[1][range.half];
    float pull[kHalf];
    for (int i = 0; i < kHalf; ++i) {
      float sum = 0;
      for (int k = 0; k < kHalf; ++k) sum += cell.H(first + i, first + kHalf + k) * upper[k];
      pull[i] = 2 * sum;
    }
    for (int p = range.begin; p < range.end; ++p) {
      const int lower = book_.points[p] & 0xff;
      float sum = cost[1][range.half] + cost[0][lower];
      for (int i = 0; i < kHalf; ++i) sum += change[0][lower][i] * pull[i];
      if (sum >= *best) continue;
      *best = sum;
      found = p;
    }
  }
  if (found < 0) return false;
  PutCodes(found, negative, codes);
  return true;
}

// Takes the codes from `first` on if that lowers the error, and returns by how much.
double Codebook::Apply(Cell* cell, int first, int count, const uint8_t* codes) const {
  double change[kMaxCell];
  double gain = 0;
  for (int i = 0; i < count; ++i) {
    change[i] =
        double{cell->step * levels_[codes[i]]} - cell->step * levels_[cell->codes[first + i]];
  }
  for (int i = 0; i < count; ++i) {
    double through = 0;
    for (int k = 0; k < count; ++k) through += change[k] * cell->H(first + i, first + k);
    gain += change[i] * (2.0 * cell->residual[first + i] - through);
  }
  if (!(gain > 0)) return 0;
  std::copy_n(codes, count, cell->codes + first);
  for (int k = 0; k < cell_size(); ++k) {
    double pulled = 0;
    for (int i = 0; i < count; ++i) pulled += change[i] * cell->H(first + i, k);
    cell->residual[k] -= static_cast<float>(pulled);
  }
  return gain;
}

double Codebook::MovePoint(Cell* cell, int first) const {
  unsigned now = 0;
  for (int i = 0; i < book_.point_size; ++i) {
    now |= (cell->codes[first + i] < book_.magnitudes ? 1u : 0u) << i;
  }
  const unsigned wanted = WantedSigns(*cell, first);
  float best = 0;
  uint8_t codes[kMaxCell];
  const auto look = [&](unsigned negative) {
    return half_size_ == 2 ? TrySigns<2>(*cell, first, negative, &best, codes)
                           : TrySigns<4>(*cell, first, negative, &best, codes);
  };
  bool found = look(wanted);
  if (now != wanted) found = look(now) || found;
  return found ? Apply(cell, first, book_.point_size, codes) : 0;
}

// Signs one by one, or where they are tied two by two.
double Codebook::MoveSigns(Cell* cell) const {
  double gain = 0;
  const int size = cell_size(), last = 2 * book_.magnitudes - 1;
  for (int i = 0; i < size; ++i) {
    for (int k = even_signs_ ? i + 1 : i; k < (even_signs_ ? size : i + 1); ++k) {
      const float x = -2 * cell->step * levels_[cell->codes[i]];
      const float y = -2 * cell->step * levels_[cell->codes[k]];
      float less = x * (2 * cell->residual[i] - x * cell->H(i, i));
      if (k != i) {
        less += y * (2 * cell->residual[k] - y * cell->H(k, k)) - 2 * x * y * cell->H(i, k);
      }
      if (!(less > 0)) continue;
      uint8_t codes[kMaxCell];
      std::copy_n(cell->codes, size, codes);
      codes[i] = static_cast<uint8_t>(last - codes[i]);
      if (k != i) codes[k] = static_cast<uint8_t>(last - codes[k]);
      gain += Apply(cell, 0, size, codes);
    }
  }
  return gain;
}

double Codebook::Move(float step, const float* h, int64_t stride, const float* residual,
                      uint8_t* codes) const {
  Cell cell{step, h, stride, {}, {}};
  std::copy_n(residual, cell_size(), cell.residual);
  std::copy_n(codes, cell_size(), cell.codes);
  double gain = 0;
  for (int first = 0; first < cell_size(); first += book_.point_size) {
    gain += MovePoint(&cell, first);
  }
  gain += MoveSigns(&cell);
  std::copy_n(cell.codes, cell_size(), codes);
  return gain;
}

}  // namespace lwq
