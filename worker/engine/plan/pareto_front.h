// The multiple-choice knapsack over bytes, for every budget at once: choose one option per unit;
// the front holds, ascending in bytes, each total that no cheaper-or-equal total beats. Dynamic
// programme over units with dominance pruning (Nemhauser and Ullmann 1969; Kellerer, Pferschy and
// Pisinger, Knapsack Problems, 2004, chapter 11). Sizes of one model share a large common divisor,
// so the exact front stays small; past `max_points` it is thinned to the cheapest plan a granule.
// Exact while granule() is 0. Thinned, sizes stay exact and the plan at budget B costs no more than
// the best one at B - num_units * granule(). Equal bytes and cost: the earlier unit takes the wider
// option.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lwq {

struct ParetoOption {
  int64_t bytes = 0;
  double cost = 0;  // finite
};

class ParetoFront {
 public:
  static constexpr size_t kMaxPoints = size_t{1} << 15;

  // options[u]: at least one and at most 256 options of unit u, in any order; their totals must fit
  // int64_t. An option that is larger and no cheaper than another of its unit is never chosen: the
  // same as making costs non-increasing in bytes first.
  static ParetoFront Build(const std::vector<std::vector<ParetoOption>>& options,
                           size_t max_points = kMaxPoints);

  // Only what matters for budgets in [low, high], and so exact for models whose whole front is not:
  // partial plans go that cannot fit, or whose Lagrangian bound says that they end above a plan of
  // at most `low` bytes that is known (Kellerer, Pferschy and Pisinger, section 11.3). `low` is at
  // least the smallest plan's bytes and at most `high`; point 0 is of at most `low` bytes.
  static ParetoFront BuildWithin(const std::vector<std::vector<ParetoOption>>& options, int64_t low,
                                 int64_t high, size_t max_points = kMaxPoints);

  size_t size() const { return points_.size(); }
  // Ascending in bytes, strictly descending in cost.
  const ParetoOption& point(size_t i) const { return points_[i]; }
  // Index of the last point of at most `bytes`; -1 when even the smallest is larger.
  int64_t LastWithin(int64_t bytes) const;
  // The option of each unit, as indexed in `options`.
  std::vector<int> Choices(size_t i) const;
  // Bytes a thinned point stands for; 0: nothing was thinned.
  int64_t granule() const { return granule_; }

 private:
  struct Step {
    uint32_t parent;  // point of the previous unit's front
    uint8_t choice;
  };
  class Builder;
  std::vector<ParetoOption> points_;
  std::vector<std::vector<Step>> steps_;  // [unit][point of that unit's front]
  int64_t granule_ = 0;
};

}  // namespace lwq
