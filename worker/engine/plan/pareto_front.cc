#include "worker/engine/plan/pareto_front.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace lwq {
namespace {

struct Choice {
  int64_t bytes;
  double cost;
  uint8_t index;  // in the caller's order
};
using Unit = std::vector<Choice>;

// The unit's own front: ascending in bytes, strictly descending in cost.
Unit PruneOptions(const std::vector<ParetoOption>& options) {
  Unit sorted;
  for (size_t i = 0; i < options.size(); ++i) {
    sorted.push_back({options[i].bytes, options[i].cost, static_cast<uint8_t>(i)});
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Choice& a, const Choice& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost;
  });
  Unit kept;
  for (const Choice& choice : sorted) {
    if (kept.empty() || choice.cost < kept.back().cost) kept.push_back(choice);
  }
  return kept;
}

// Which partial plans may still end as a plan that matters. Everything may, unless a window of
// budgets is set.
class Bound {
 public:
  Bound() = default;
  Bound(const std::vector<Unit>& units, int64_t low, int64_t high);

  // A plan of the first `count` units.
  bool Keeps(const ParetoOption& partial, size_t count) const {
    if (rest_.empty()) return true;
    const Rest& rest = rest_[count];
    return partial.bytes + rest.bytes <= high_ && Weighed(partial) + rest.weighed <= limit_;
  }

 private:
  // Of the units behind: the fewest bytes, and the least cost with bytes at their price.
  struct Rest {
    int64_t bytes = 0;
    double weighed = 0;
  };
  double Weighed(const ParetoOption& option) const {
    return option.cost + price_ * static_cast<double>(option.bytes);
  }
  double FindPlan(const std::vector<Unit>& units, int64_t low);

  double price_ = 0;  // of a byte
  double limit_ = std::numeric_limits<double>::infinity();
  int64_t high_ = std::numeric_limits<int64_t>::max();
  std::vector<Rest> rest_;  // by number of units decided; empty without a window
};

// A step from a format to a larger one, along the lower hull of a unit's options.
struct HullStep {
  int64_t bytes;
  double gain;  // of cost
  size_t unit;
  double rate() const { return gain / static_cast<double>(bytes); }
};

void AddHullSteps(const Unit& unit, size_t index, std::vector<HullStep>& steps) {
  for (size_t at = 0; at + 1 < unit.size();) {
    size_t next = at + 1;
    const auto step = [&](size_t to) {
      return HullStep{unit[to].bytes - unit[at].bytes, unit[at].cost - unit[to].cost, index};
    };
    for (size_t to = at + 2; to < unit.size(); ++to) {
      if (step(to).rate() >= step(next).rate()) next = to;
    }
    steps.push_back(step(next));
    at = next;
  }
}

// Takes the best steps until one does not fit `low`, whose rate is then the price of a byte, and
// returns the cost of that plan, which the greedy algorithm of the linear relaxation is.
double Bound::FindPlan(const std::vector<Unit>& units, int64_t low) {
  std::vector<HullStep> steps;
  int64_t bytes = 0;
  double cost = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    bytes += units[u].front().bytes;
    cost += units[u].front().cost;
    AddHullSteps(units[u], u, steps);
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const HullStep& a, const HullStep& b) { return a.rate() > b.rate(); });
  std::vector<bool> stopped(units.size(), false);  // a unit's later steps stand on its earlier ones
  for (const HullStep& step : steps) {
    if (stopped[step.unit]) continue;
    if (bytes + step.bytes > low) {
      if (price_ == 0) price_ = step.rate();
      stopped[step.unit] = true;
      continue;
    }
    bytes += step.bytes;
    cost -= step.gain;
  }
  return cost;
}

Bound::Bound(const std::vector<Unit>& units, int64_t low, int64_t high) : high_(high) {
  const double known = FindPlan(units, low);
  rest_.resize(units.size() + 1);
  double magnitude = 0;
  for (size_t u = units.size(); u-- > 0;) {
    double least = std::numeric_limits<double>::infinity();
    for (const Choice& choice : units[u]) {
      least = std::min(least, Weighed({choice.bytes, choice.cost}));
    }
    rest_[u] = {rest_[u + 1].bytes + units[u].front().bytes, rest_[u + 1].weighed + least};
    magnitude += std::abs(least);
  }
  // What rounding of the sums above may be wrong by.
  limit_ = known + price_ * static_cast<double>(high) + 1e-9 * magnitude;
}

}  // namespace

// Appends points in order of bytes, dropping the dominated and what the bound refuses; with a
// granule, each bucket of that many bytes keeps its cheapest. The very first point always stays.
class ParetoFront::Builder {
 public:
  Builder(std::vector<ParetoOption>& points, std::vector<Step>& steps, int64_t granule)
      : points_(points), steps_(steps), granule_(granule) {}

  void Add(const ParetoOption& point, const Step& step) {
    if (!points_.empty()) {
      if (point.cost >= points_.back().cost) return;
      if (granule_ > 0 && points_.size() > 1 && Bucket(point) == Bucket(points_.back())) {
        points_.back() = point;
        steps_.back() = step;
        return;
      }
    }
    points_.push_back(point);
    steps_.push_back(step);
  }

  // front x choices in order of (bytes, cost, choice), by a merge of one shifted copy a choice.
  template <typename Keeps>
  void Merge(const std::vector<ParetoOption>& front, const Unit& choices, const Keeps& keeps) {
    std::vector<size_t> next(choices.size(), 0);
    for (;;) {
      int best = -1;
      ParetoOption best_point;
      for (size_t c = 0; c < choices.size(); ++c) {
        if (next[c] == front.size()) continue;
        const ParetoOption& from = front[next[c]];
        const ParetoOption point = {from.bytes + choices[c].bytes, from.cost + choices[c].cost};
        if (best < 0 || point.bytes < best_point.bytes ||
            (point.bytes == best_point.bytes && point.cost < best_point.cost)) {
          best = static_cast<int>(c);
          best_point = point;
        }
      }
      if (best < 0) return;
      if (keeps(best_point)) {
        Add(best_point, Step{static_cast<uint32_t>(next[best]), choices[best].index});
      }
      ++next[best];
    }
  }

  static ParetoFront Build(const std::vector<Unit>& units, const Bound& bound, size_t max_points);

 private:
  int64_t Bucket(const ParetoOption& point) const {
    return (point.bytes - points_.front().bytes) / granule_;
  }
  std::vector<ParetoOption>& points_;
  std::vector<Step>& steps_;
  const int64_t granule_;
};

ParetoFront ParetoFront::Builder::Build(const std::vector<Unit>& units, const Bound& bound,
                                        size_t max_points) {
  ParetoFront front;
  int64_t range = 0;
  for (const Unit& choices : units) range += choices.back().bytes - choices.front().bytes;
  const int64_t coarse = range / static_cast<int64_t>(std::max<size_t>(max_points, 1)) + 1;

  front.points_ = {{0, 0}};
  for (size_t u = 0; u < units.size(); ++u) {
    std::vector<ParetoOption> merged;
    std::vector<Step> steps;
    Builder builder(merged, steps, front.granule_);
    builder.Merge(front.points_, units[u],
                  [&](const ParetoOption& point) { return bound.Keeps(point, u + 1); });
    if (front.granule_ == 0 && merged.size() > max_points) {
      front.granule_ = coarse;
      std::vector<ParetoOption> thinned;
      std::vector<Step> thinned_steps;
      Builder thinner(thinned, thinned_steps, front.granule_);
      for (size_t i = 0; i < merged.size(); ++i) thinner.Add(merged[i], steps[i]);
      merged.swap(thinned);
      steps.swap(thinned_steps);
    }
    steps.shrink_to_fit();
    front.points_.swap(merged);
    front.steps_.push_back(std::move(steps));
  }
  return front;
}

namespace {

std::vector<Unit> PruneAll(const std::vector<std::vector<ParetoOption>>& options) {
  std::vector<Unit> units;
  for (const auto& unit : options) units.push_back(PruneOptions(unit));
  return units;
}

}  // namespace

ParetoFront ParetoFront::Build(const std::vector<std::vector<ParetoOption>>& options,
                               size_t max_points) {
  return Builder::Build(PruneAll(options), Bound(), max_points);
}

ParetoFront ParetoFront::BuildWithin(const std::vector<std::vector<ParetoOption>>& options,
                                     int64_t low, int64_t high, size_t max_points) {
  const std::vector<Unit> units = PruneAll(options);
  return Builder::Build(units, Bound(units, low, high), max_points);
}

int64_t ParetoFront::LastWithin(int64_t bytes) const {
  const auto after =
      std::upper_bound(points_.begin(), points_.end(), bytes,
                       [](int64_t limit, const ParetoOption& p) { return limit < p.bytes; });
  return after - points_.begin() - 1;
}

std::vector<int> ParetoFront::Choices(size_t i) const {
  std::vector<int> choices(steps_.size());
  for (size_t u = steps_.size(); u-- > 0;) {
    const Step& step = steps_[u][i];
    choices[u] = step.choice;
    i = step.parent;
  }
  return choices;
}

}  // namespace lwq
