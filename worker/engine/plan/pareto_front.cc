#include "worker/engine/plan/pareto_front.h"

#include <algorithm>
#include <numeric>

namespace lwq {
namespace {

struct Choice {
  int64_t bytes;
  double cost;
  uint8_t index;  // in the caller's order
};

// The unit's own front: ascending in bytes, strictly descending in cost.
std::vector<Choice> PruneOptions(const std::vector<ParetoOption>& options) {
  std::vector<Choice> sorted;
  for (size_t i = 0; i < options.size(); ++i) {
    sorted.push_back({options[i].bytes, options[i].cost, static_cast<uint8_t>(i)});
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Choice& a, const Choice& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost;
  });
  std::vector<Choice> kept;
  for (const Choice& choice : sorted) {
    if (kept.empty() || choice.cost < kept.back().cost) kept.push_back(choice);
  }
  return kept;
}

// Appends points in order of bytes, dropping the dominated; with a granule, each bucket of that
// many bytes keeps its cheapest. The very first point, the smallest plan, always stays.
template <typename Step>
class FrontBuilder {
 public:
  FrontBuilder(std::vector<ParetoOption>& points, std::vector<Step>& steps, int64_t granule)
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

 private:
  int64_t Bucket(const ParetoOption& point) const {
    return (point.bytes - points_.front().bytes) / granule_;
  }
  std::vector<ParetoOption>& points_;
  std::vector<Step>& steps_;
  const int64_t granule_;
};

// front x choices in order of (bytes, cost, choice), by a merge of one shifted copy a choice.
template <typename Step>
void Merge(const std::vector<ParetoOption>& front, const std::vector<Choice>& choices,
           FrontBuilder<Step>& out) {
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
    out.Add(best_point, Step{static_cast<uint32_t>(next[best]), choices[best].index});
    ++next[best];
  }
}

}  // namespace

ParetoFront ParetoFront::Build(const std::vector<std::vector<ParetoOption>>& options,
                               size_t max_points) {
  ParetoFront front;
  std::vector<std::vector<Choice>> units;
  int64_t range = 0;
  for (const auto& unit : options) {
    units.push_back(PruneOptions(unit));
    range += units.back().back().bytes - units.back().front().bytes;
  }
  const int64_t coarse = range / static_cast<int64_t>(std::max<size_t>(max_points, 1)) + 1;

  front.points_ = {{0, 0}};
  for (const auto& choices : units) {
    std::vector<ParetoOption> merged;
    std::vector<Step> steps;
    FrontBuilder<Step> builder(merged, steps, front.granule_);
    Merge(front.points_, choices, builder);
    if (front.granule_ == 0 && merged.size() > max_points) {
      front.granule_ = coarse;
      std::vector<ParetoOption> thinned;
      std::vector<Step> thinned_steps;
      FrontBuilder<Step> thinner(thinned, thinned_steps, front.granule_);
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
