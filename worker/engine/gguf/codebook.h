// The codes that a type with a codebook may have, and the search for the best of them. Not every
// row of codes is one: the magnitudes of a point's values stand in a table, and where signs are
// stored as seven bits the eighth follows from them. So codes are chosen a cell at a time: a
// point's values, or eight where signs are tied.
//
// Both searches go over all points, with what half a point's values contribute looked up; the rest
// of a point is skipped where its half alone is too much.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/tensor/block_layout.h"

namespace lwq {

// Immutable, thread-safe; results depend on nothing but the arguments.
class Codebook {
 public:
  static constexpr int kMaxCell = 8;

  // `layout` has a codebook whose points ascend, and lives as long as this.
  explicit Codebook(const BlockLayout& layout);

  int point_size() const { return book_.point_size; }
  // Values whose codes are chosen together; it divides a sub-block's.
  int cell_size() const { return even_signs_ ? kMaxCell : book_.point_size; }
  // The point that has the magnitudes of these point_size() codes, or -1. Signs are not looked at.
  int PointOf(const uint8_t* codes) const;

  // The codes of one cell whose levels make the sum of w (v - level)^2 least; with tied signs close
  // to that. `v`, `w` [cell_size()]: any floats are fine, weights that are not positive count as 0.
  void Round(const float* v, const float* w, uint8_t* codes) const;

  // Moves the codes of one cell to where the calibrated error is least, as far as a search point by
  // point and sign by sign finds it: by x H x^T - 2 x r for a change x of the values, which are
  // step * level. `h`: H from the cell's first value on, `stride` apart; `residual` [cell_size()].
  // Returns what the error falls by, above zero where a code changes.
  double Move(float step, const float* h, int64_t stride, const float* residual,
              uint8_t* codes) const;

 private:
  // Points that have the same upper half, and ranges of those that have the same uppermost nibble.
  struct Range {
    int half;
    int begin, end;
  };
  struct Group {
    int nibble;
    int begin, end;
  };
  static constexpr int kPlaces = 4;  // nibbles of a pattern
  struct Prices {
    float of[kPlaces][16];
    int nearest[kPlaces];
  };
  // One of a half's rows of magnitudes, by the byte that it is in a point.
  struct Half {
    int byte;
    float magnitudes[kMaxCell / 2];
  };
  struct Cell;

  template <int kMagnitudes>
  void PriceNibbles(const float* v, const float* w, Prices* prices) const;
  float RoundPoint(const float* v, const float* w, float bound, int* point) const;
  void PutCodes(int point, unsigned negative, uint8_t* codes) const;
  void FlipOne(const float* v, const float* w, const float* costs, int* points,
               unsigned* negative) const;
  template <int kHalf>
  bool TrySigns(const Cell& cell, int first, unsigned negative, float* best, uint8_t* codes) const;
  double MovePoint(Cell* cell, int first) const;
  double MoveSigns(Cell* cell) const;
  double Apply(Cell* cell, int first, int count, const uint8_t* codes) const;
  unsigned WantedSigns(const Cell& cell, int first) const;

  const CodebookLayout& book_;
  const float* const levels_;  // of codes
  const bool even_signs_;
  const int half_size_;              // values in half a point
  std::vector<Range> ranges_;        // of upper halves
  std::vector<Group> groups_;        // of ranges
  std::vector<Half> halves_;         // all there can be
  std::vector<int16_t> by_pattern_;  // [2^16]: the point, or -1
};

}  // namespace lwq
