// Plans that are measured before one is chosen. What units cost one by one does not add up: below
// four bits the whole costs more than its parts, and more so where errors have many layers ahead of
// them. So, in three rounds of at most kMaxTrials measurements:
//
// 1. Plans that the costs as they are, and flatter or steeper ones, lead to, with all formats and
//    with the grids of one group size alone; and the plain plans, one format throughout and whole
//    layers by rank (baselines.h).
// 2. Probes of the best so far: some layers, or one kind of unit, one format larger, over the
//    budget. What such a step gains, measured against predicted, tells how far costs are off there.
// 3. Plans by the costs so corrected.
//
// The corrections stand for what quadratic models of interaction (CLADO, arXiv 2307.05657) and
// measuring again at the operating point (EvoPress, arXiv 2410.14649) find with many more runs.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/baselines.h"

namespace lwq {
namespace {

constexpr double kExponents[] = {1, 1.25, 1.5, 2};
constexpr double kCorrectedExponents[] = {1, 1.25};
constexpr int kMaxDepths = 12;  // runs of neighbouring layers that are probed
// Where engines fuse nothing a layer has seven, its experts three or four more, and the tables two.
constexpr int kMaxKinds = 16;
// How far a correction may be from the median: measurements of little gain are mostly noise.
constexpr double kMaxCorrection = 5;
constexpr int kMaxBaselines = 6;
constexpr int kMaxGroupSizes = 4;
constexpr int kMaxTrials =
    4 + 2 * kMaxGroupSizes + kMaxBaselines + kMaxDepths + kMaxKinds + 6 + 1 + kMaxBaselines;

using Costs = std::vector<std::vector<double>>;

// Units that are probed together.
struct Group {
  std::string name;
  std::vector<size_t> units;
};

class Tournament {
 public:
  Tournament(const AllocationProblem& problem, absl::Span<const MeasuredPlan> measured)
      : problem_(problem), measured_(measured), costs_(UnitCosts(problem)) {}

  absl::StatusOr<std::vector<Allocation>> Next();

 private:
  absl::StatusOr<std::vector<Allocation>> FirstPlans() const;
  absl::Status AddPlansOfOneGroupSize(std::vector<Allocation>& plans) const;
  std::vector<Allocation> Probes() const;
  absl::StatusOr<std::vector<Allocation>> CorrectedPlans() const;

  // Adds a plan unless it was measured in the rounds before or is there already.
  void Add(Allocation plan, std::string origin, std::vector<Allocation>& plans) const;
  AllocationProblem InGroupsOf(int64_t size) const;
  AllocationProblem WithCosts(Costs costs) const;
  absl::Status AddKnapsack(AllocationProblem problem, double exponent, absl::string_view what,
                           std::vector<Allocation>& plans) const;
  std::vector<Group> Depths() const;
  std::vector<Group> Kinds() const;
  Plan Enlarge(const Group& group) const;
  std::vector<double> Corrections(const std::vector<Group>& groups) const;
  const MeasuredPlan* Find(const Plan& plan) const;

  const AllocationProblem& problem_;
  const absl::Span<const MeasuredPlan> measured_;
  const Costs costs_;
  size_t rounds_before_ = 0;            // plans of the rounds before the one being made
  const MeasuredPlan* best_ = nullptr;  // of the first round
};

// What was measured follows from the problem, so the rounds are made again to see where it ends.
absl::StatusOr<std::vector<Allocation>> Tournament::Next() {
  LWQ_ASSIGN_OR_RETURN(std::vector<Allocation> first, FirstPlans());
  if (first.size() < 2) return std::vector<Allocation>();  // nothing to choose from
  if (measured_.size() < first.size()) return first;
  rounds_before_ = first.size();
  best_ = &*std::min_element(
      measured_.begin(), measured_.begin() + static_cast<std::ptrdiff_t>(first.size()),
      [](const MeasuredPlan& a, const MeasuredPlan& b) { return a.kl < b.kl; });
  std::vector<Allocation> probes = Probes();
  if (measured_.size() < rounds_before_ + probes.size()) return probes;
  rounds_before_ += probes.size();
  if (measured_.size() > rounds_before_) return std::vector<Allocation>();
  return CorrectedPlans();
}

absl::StatusOr<std::vector<Allocation>> Tournament::FirstPlans() const {
  std::vector<Allocation> plans;
  for (const double exponent : kExponents) {
    LWQ_RETURN_IF_ERROR(AddKnapsack(WithCosts(costs_), exponent, "the units' own costs", plans));
  }
  LWQ_RETURN_IF_ERROR(AddPlansOfOneGroupSize(plans));
  LWQ_ASSIGN_OR_RETURN(std::vector<Baseline> baselines, Baselines(problem_));
  for (Baseline& baseline : baselines) {
    Add(std::move(baseline.allocation), absl::StrCat(baseline.name, "."), plans);
  }
  return plans;
}

// With several group sizes most costs follow from errors and few are measured, so the best mixture
// by costs may do worse than the best one of a single size. The row, 0, is a size like the others.
absl::Status Tournament::AddPlansOfOneGroupSize(std::vector<Allocation>& plans) const {
  std::set<int64_t> sizes;
  for (const UnitMenu& menu : problem_.menu.units) {
    for (const WeightFormat* format : menu.formats) {
      if (format->grid() != nullptr) sizes.insert(format->grid()->group_size());
    }
  }
  if (sizes.size() < 2 || sizes.size() > kMaxGroupSizes) return absl::OkStatus();
  for (const int64_t size : sizes) {
    const AllocationProblem only = InGroupsOf(size);
    if (MeasurePlan(only, SmallestPlan(only)) > AllowedBytes(only)) continue;
    for (const double exponent : kCorrectedExponents) {
      LWQ_RETURN_IF_ERROR(AddKnapsack(
          only, exponent, absl::StrCat("the units' own costs in groups of ", size), plans));
    }
  }
  return absl::OkStatus();
}

// The problem without the grids of other sizes. A unit that has none of this size keeps its choice.
AllocationProblem Tournament::InGroupsOf(int64_t size) const {
  AllocationProblem only = WithCosts(costs_);
  const auto has_a_size = [](const WeightFormat* format) { return format->grid() != nullptr; };
  const auto has_this_size = [&](const WeightFormat* format) {
    return has_a_size(format) && format->grid()->group_size() == size;
  };
  for (size_t u = 0; u < only.menu.units.size(); ++u) {
    UnitMenu& menu = only.menu.units[u];
    if (absl::c_none_of(menu.formats, has_this_size)) continue;
    std::vector<const WeightFormat*> formats;
    std::vector<double> costs;
    std::vector<int> kept;  // by index of all formats: the last that is kept up to there
    for (size_t f = 0; f < menu.formats.size(); ++f) {
      if (!has_a_size(menu.formats[f]) || has_this_size(menu.formats[f])) {
        formats.push_back(menu.formats[f]);
        costs.push_back(only.cost[u][f]);
      }
      kept.push_back(std::max(0, static_cast<int>(formats.size()) - 1));
    }
    for (int& at : menu.at_rung) at = kept[static_cast<size_t>(at)];
    menu.formats = std::move(formats);
    only.cost[u] = std::move(costs);
  }
  return only;
}

AllocationProblem Tournament::WithCosts(Costs costs) const {
  AllocationProblem changed = problem_;
  changed.cost = std::move(costs);
  return changed;
}

std::vector<Allocation> Tournament::Probes() const {
  std::vector<Allocation> plans;
  for (const std::vector<Group>& groups : {Depths(), Kinds()}) {
    for (const Group& group : groups) {
      Allocation probe;
      probe.plan = Enlarge(group);
      MeasureAllocation(problem_, probe);
      Add(std::move(probe), absl::StrCat("the best so far with ", group.name, " one format up."),
          plans);
    }
  }
  return plans;
}

absl::StatusOr<std::vector<Allocation>> Tournament::CorrectedPlans() const {
  const std::vector<double> depth = Corrections(Depths()), kind = Corrections(Kinds());
  Costs by_depth = costs_, by_both = costs_, by_half = costs_;
  for (size_t u = 0; u < costs_.size(); ++u) {
    for (size_t f = 0; f < costs_[u].size(); ++f) {
      by_depth[u][f] *= depth[u];
      by_both[u][f] *= depth[u] * kind[u];
      by_half[u][f] *= std::sqrt(depth[u] * kind[u]);
    }
  }
  std::vector<Allocation> plans;
  for (const double exponent : kCorrectedExponents) {
    LWQ_RETURN_IF_ERROR(
        AddKnapsack(WithCosts(by_depth), exponent, "costs corrected by depth", plans));
    LWQ_RETURN_IF_ERROR(AddKnapsack(WithCosts(by_both), exponent,
                                    "costs corrected by depth and kind of unit", plans));
    LWQ_RETURN_IF_ERROR(AddKnapsack(WithCosts(by_half), exponent,
                                    "costs corrected half way by depth and kind", plans));
  }
  return plans;
}

void Tournament::Add(Allocation plan, std::string origin, std::vector<Allocation>& plans) const {
  for (const MeasuredPlan& before : measured_.subspan(0, rounds_before_)) {
    if (before.plan == plan.plan) return;
  }
  for (const Allocation& other : plans) {
    if (other.plan == plan.plan) return;
  }
  plan.explanation = std::move(origin);
  plans.push_back(std::move(plan));
}

// Costs of `problem` to the power `exponent`.
absl::Status Tournament::AddKnapsack(AllocationProblem problem, double exponent,
                                     absl::string_view what, std::vector<Allocation>& plans) const {
  for (std::vector<double>& row : problem.cost) {
    for (double& cost : row) cost = std::pow(std::max(cost, 0.0), exponent);
  }
  LWQ_ASSIGN_OR_RETURN(Allocation plan, AllocatorDefs::knapsack.allocate(problem));
  MeasureAllocation(problem_, plan);  // the cost in the problem's own measure
  const std::string power = exponent == 1 ? "" : absl::StrCat(" to the power ", exponent);
  Add(std::move(plan), absl::StrCat("the knapsack over ", what, power, "."), plans);
  return absl::OkStatus();
}

std::vector<Group> Tournament::Depths() const {
  const int layers = problem_.model->num_layers;
  const int count = std::min(layers, kMaxDepths);
  std::vector<Group> groups(static_cast<size_t>(count));
  for (int g = 0; g < count; ++g) {
    groups[static_cast<size_t>(g)].name =
        absl::StrCat("layers ", g * layers / count, " to ", (g + 1) * layers / count - 1);
  }
  for (size_t u = 0; u < problem_.model->units.size(); ++u) {
    const Place place = problem_.model->units[u].place;
    if (!place.in_layer()) continue;
    const int layer = place.layer;
    // The g with g * layers / count <= layer.
    int g = layer * count / layers;
    while (g + 1 < count && (g + 1) * layers / count <= layer) ++g;
    groups[static_cast<size_t>(g)].units.push_back(u);
  }
  return groups;
}

std::vector<Group> Tournament::Kinds() const {
  std::vector<Group> groups;
  for (size_t u = 0; u < problem_.model->units.size(); ++u) {
    const std::string& kind = problem_.model->units[u].kind;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&kind](const Group& g) { return g.name == kind; });
    if (group == groups.end()) {
      if (static_cast<int>(groups.size()) == kMaxKinds) continue;
      group = groups.insert(groups.end(), Group{kind, {}});
    }
    group->units.push_back(u);
  }
  return groups;
}

Plan Tournament::Enlarge(const Group& group) const {
  Plan plan = best_->plan;
  for (size_t u : group.units) {
    const UnitMenu& menu = problem_.menu.units[u];
    const GridFormat* grid = plan[u]->grid();
    // The same width in smaller groups gains less than the measurement is off.
    const auto next = std::find_if(menu.formats.begin() + menu.Find(plan[u]) + 1,
                                   menu.formats.end(), [grid](const WeightFormat* format) {
                                     return grid == nullptr || format->grid() == nullptr ||
                                            format->grid()->bits() != grid->bits();
                                   });
    if (next != menu.formats.end()) plan[u] = *next;
  }
  return plan;
}

// By unit: how much more its group gained than its costs predicted, over the median of the groups.
std::vector<double> Tournament::Corrections(const std::vector<Group>& groups) const {
  constexpr double kUnknown = -1;
  std::vector<double> ratios(groups.size(), kUnknown), known;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Plan enlarged = Enlarge(groups[g]);
    const MeasuredPlan* plan = Find(enlarged);
    const double predicted =
        PredictedCost(problem_, costs_, best_->plan) - PredictedCost(problem_, costs_, enlarged);
    if (plan == nullptr || predicted <= 0) continue;
    ratios[g] = std::max(best_->kl - plan->kl, 0.0) / predicted;
    known.push_back(ratios[g]);
  }
  std::vector<double> corrections(problem_.model->units.size(), 1.0);
  if (known.empty()) return corrections;
  std::nth_element(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2),
                   known.end());
  const double median = known[known.size() / 2];
  if (median <= 0) return corrections;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (ratios[g] == kUnknown) continue;
    const double ratio = std::clamp(ratios[g] / median, 1 / kMaxCorrection, kMaxCorrection);
    for (size_t u : groups[g].units) corrections[u] = ratio;
  }
  return corrections;
}

const MeasuredPlan* Tournament::Find(const Plan& plan) const {
  for (const MeasuredPlan& measured : measured_) {
    if (measured.plan == plan) return &measured;
  }
  return nullptr;
}

absl::StatusOr<std::vector<Allocation>> Propose(const AllocationProblem& problem,
                                                absl::Span<const MeasuredPlan> measured) {
  return Tournament(problem, measured).Next();
}

absl::StatusOr<Allocation> AllocateFirst(const AllocationProblem& problem) {
  return AllocatorDefs::knapsack.allocate(problem);
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::lwq = {
    .name = "lwq",
    .help = "the best of many plans, each measured on calibration text",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateFirst,
    .max_trials = kMaxTrials,
    .propose = &Propose,
};

}  // namespace lwq
