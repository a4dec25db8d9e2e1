// The plan of least total cost within the budget: an exact multiple-choice knapsack over the bytes
// of codes and scales (pareto_front.h; of large models the part of its front around the budget),
// then corrected for file headers, whose length depends on the whole plan (digits of offsets), by
// laying the artifact out. Methods: HIGGS (arXiv 2411.17525) and others solve the same problem over
// measured costs.
//
// What headers leave open is a few bytes a tensor. Those, and the gaps that widths leave, are spent
// last on whatever larger format still fits at no higher cost, best gain per byte first.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/pareto_front.h"

namespace lwq {
namespace {

// A JSON header entry has seven numbers that a wider format may lengthen by a digit, and padding.
constexpr int64_t kHeaderSlackPerTensor = 8;
constexpr int64_t kTensorsPerLinear = 4;
// What one more shard adds: length word, metadata, padding. There is at most one a tensor.
constexpr int64_t kShardSlackPerTensor = 128;
constexpr size_t kMaxFrontierPoints = 1000;
constexpr int kMaxCorrections = 64;

// One problem being solved. Choices are indices of the units' menus.
struct Knapsack {
  struct Move {
    int unit = -1;
    int format = -1;
    int64_t added_bytes = 0;
  };

  explicit Knapsack(const AllocationProblem& p);
  Plan PlanOf(const std::vector<int>& choices) const;
  int64_t Measure(const std::vector<int>& choices) const {
    return MeasurePlan(problem, PlanOf(choices));
  }
  int64_t Payload(const std::vector<int>& choices) const;
  double Cost(const std::vector<int>& choices) const;
  void Narrow();
  std::vector<int> BestOnFront() const;
  Move BestMove(const std::vector<int>& choices, const std::vector<std::vector<bool>>& refused,
                int64_t room) const;
  int SpendRest(std::vector<int>& choices) const;

  const AllocationProblem& problem;
  std::vector<std::vector<ParetoOption>> options;  // [unit][format]; costs non-increasing in bytes
  ParetoFront front;
  int64_t allowed = 0;
  int64_t header_slack = 64;
  bool narrowed = false;
};

// A larger format that measured worse than a smaller one did so by noise: it costs the same.
void MakeMonotone(std::vector<ParetoOption>& options) {
  std::vector<ParetoOption> measured = options;
  for (ParetoOption& option : options) {
    for (const ParetoOption& other : measured) {
      if (other.bytes <= option.bytes) option.cost = std::min(option.cost, other.cost);
    }
  }
}

// What further tensors add to the header when a unit moves to a larger format.
int64_t AddedEntries(const ModelInventory& model, const AllocationUnit& unit,
                     const std::vector<const WeightFormat*>& formats) {
  // Suffix, dtype, shape, offsets and punctuation of an entry, beside the module's name.
  constexpr int64_t kEntryBytes = 160;
  int64_t bytes = 0;
  for (const LinearShape& linear : unit.linears) {
    size_t fewest = SIZE_MAX, added = 0;
    for (const WeightFormat* format : formats) {  // ascending in bytes
      const size_t count = LinearTensors(model, linear, *format).size();
      added = std::max(added, count > fewest ? count - fewest : 0);
      fewest = std::min(fewest, count);
    }
    bytes +=
        static_cast<int64_t>(added) * (static_cast<int64_t>(linear.module.size()) + kEntryBytes);
  }
  return bytes;
}

Knapsack::Knapsack(const AllocationProblem& p) : problem(p) {
  const std::vector<std::vector<double>> cost = UnitCosts(p);
  int64_t num_tensors = static_cast<int64_t>(p.model->dense.size());
  for (size_t u = 0; u < p.model->units.size(); ++u) {
    const AllocationUnit& unit = p.model->units[u];
    std::vector<ParetoOption> row;
    const std::vector<const WeightFormat*>& formats = p.menu.units[u].formats;
    for (size_t f = 0; f < formats.size(); ++f) {
      row.push_back({UnitPayloadBytes(*p.model, unit, formats[f]), cost[u][f]});
    }
    MakeMonotone(row);
    options.push_back(std::move(row));
    header_slack += AddedEntries(*p.model, unit, formats);
    num_tensors += kTensorsPerLinear * static_cast<int64_t>(unit.linears.size());
  }
  header_slack += kHeaderSlackPerTensor * num_tensors;
  if (p.max_shard_bytes > 0) header_slack += kShardSlackPerTensor * num_tensors;
  front = ParetoFront::Build(options);
  allowed = AllowedBytes(p);
}

Plan Knapsack::PlanOf(const std::vector<int>& choices) const {
  Plan plan;
  for (size_t u = 0; u < choices.size(); ++u) {
    plan.push_back(problem.menu.units[u].formats[static_cast<size_t>(choices[u])]);
  }
  return plan;
}

int64_t Knapsack::Payload(const std::vector<int>& choices) const {
  int64_t bytes = 0;
  for (size_t u = 0; u < choices.size(); ++u) bytes += options[u][choices[u]].bytes;
  return bytes;
}

double Knapsack::Cost(const std::vector<int>& choices) const {
  double cost = 0;
  for (size_t u = 0; u < choices.size(); ++u) cost += options[u][choices[u]].cost;
  return cost;
}

// Of a front that had to be thinned, the part around the budget again and in full. It is as wide as
// sizes may differ from what payloads tell.
void Knapsack::Narrow() {
  const std::vector<int> choices = BestOnFront();
  const int64_t payload = allowed - (Measure(choices) - Payload(choices));
  const int64_t low = std::max(payload - header_slack, front.point(0).bytes);
  const int64_t high = std::max(payload + header_slack, low);
  ParetoFront part = ParetoFront::BuildWithin(options, low, high);
  if (part.granule() > 0) return;
  front = std::move(part);
  narrowed = true;
}

// The last point of the front whose exact size fits. What a plan takes beyond its payload hardly
// varies, so a few corrections by the measured difference find it.
std::vector<int> Knapsack::BestOnFront() const {
  int64_t best = 0;
  std::vector<int> best_choices = front.Choices(0);
  int64_t lowest_over = static_cast<int64_t>(front.size());
  int64_t beyond_payload = Measure(best_choices) - front.point(0).bytes;
  for (int i = 0; i < kMaxCorrections; ++i) {
    const int64_t guess = std::min(front.LastWithin(allowed - beyond_payload), lowest_over - 1);
    if (guess <= best) break;
    std::vector<int> choices = front.Choices(guess);
    const int64_t bytes = Measure(choices);
    beyond_payload = bytes - front.point(guess).bytes;
    if (bytes > allowed) {
      lowest_over = guess;
    } else {
      best = guess;
      best_choices = std::move(choices);
    }
  }
  return best_choices;
}

// Moves single units to larger formats of no higher cost while they fit. Returns how many moved.
int Knapsack::SpendRest(std::vector<int>& choices) const {
  int moved = 0;
  // Size = payload + beyond_payload, to within header_slack of what it was when last measured.
  int64_t payload = Payload(choices);
  int64_t beyond_payload = Measure(choices) - payload;
  std::vector<std::vector<bool>> refused;
  for (const std::vector<ParetoOption>& row : options) refused.emplace_back(row.size(), false);
  for (;;) {
    const int64_t room = allowed - payload - beyond_payload;
    const Move move = BestMove(choices, refused, room + header_slack);
    if (move.unit < 0) return moved;
    const int old_choice = choices[move.unit];
    choices[move.unit] = move.format;
    if (move.added_bytes + header_slack > room) {
      const int64_t bytes = Measure(choices);
      if (bytes > allowed) {
        choices[move.unit] = old_choice;
        refused[move.unit][move.format] = true;
        continue;
      }
      beyond_payload = bytes - payload - move.added_bytes;
    }
    payload += move.added_bytes;
    ++moved;
  }
}

// The single move of at most `room` bytes with the best gain per byte; of equal ones the largest,
// then the first unit's.
Knapsack::Move Knapsack::BestMove(const std::vector<int>& choices,
                                  const std::vector<std::vector<bool>>& refused,
                                  int64_t room) const {
  Move best;
  double best_rate = -1;
  for (size_t u = 0; u < choices.size(); ++u) {
    const ParetoOption& now = options[u][choices[u]];
    for (size_t f = 0; f < options[u].size(); ++f) {
      const int64_t added = options[u][f].bytes - now.bytes;
      const double gain = now.cost - options[u][f].cost;
      if (refused[u][f] || added <= 0 || added > room || gain < 0) continue;
      const double rate = gain / static_cast<double>(added);
      if (rate < best_rate || (rate == best_rate && added <= best.added_bytes)) continue;
      best = {static_cast<int>(u), static_cast<int>(f), added};
      best_rate = rate;
    }
  }
  return best;
}

std::string Explain(const Knapsack& knapsack, int moved) {
  std::string text =
      absl::StrCat("Lowest ", knapsack.problem.cost.empty() ? "ranked" : "predicted", " cost of ",
                   knapsack.narrowed ? "all plans"
                                     : absl::StrCat("the ", knapsack.front.size(),
                                                    " plans that no other of their size beats"));
  if (knapsack.front.granule() > 0) {
    absl::StrAppend(&text, " (there are more; one was kept for every ", knapsack.front.granule(),
                    " bytes)");
  }
  if (moved > 0) {
    absl::StrAppend(&text, "; ", moved, moved == 1 ? " unit was" : " units were",
                    " then widened with the bytes left over");
  }
  return text + ".";
}

absl::StatusOr<Allocation> AllocateKnapsack(const AllocationProblem& problem) {
  Knapsack knapsack(problem);
  if (knapsack.front.granule() > 0) knapsack.Narrow();
  const std::vector<int> on_front = knapsack.BestOnFront();
  std::vector<int> choices = on_front;
  int moved = knapsack.SpendRest(choices);
  // Most moves are not measured one by one: whatever their bound has overlooked, a budget is kept.
  if (knapsack.Measure(choices) > knapsack.allowed) {
    choices = on_front;
    moved = 0;
  }
  Allocation allocation;
  allocation.plan = knapsack.PlanOf(choices);
  MeasureAllocation(problem, allocation);
  if (!problem.cost.empty()) allocation.predicted_cost = knapsack.Cost(choices);
  allocation.explanation = Explain(knapsack, moved);
  return allocation;
}

}  // namespace

absl::StatusOr<std::vector<FrontierPoint>> KnapsackFrontier(const AllocationProblem& problem) {
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  LWQ_RETURN_IF_ERROR(CheckCosted(AllocatorDefs::knapsack, problem));
  const Knapsack knapsack(problem);
  const ParetoFront& front = knapsack.front;
  // A file is laid out to know its size, so only an even choice of its points is; the other
  // measures exceed the payload by a constant.
  const bool measured = problem.budget.kind == Budget::Kind::kFileBytes;
  const int64_t constant = knapsack.Measure(front.Choices(0)) - front.point(0).bytes;
  const size_t count = measured ? std::min(front.size(), kMaxFrontierPoints) : front.size();
  std::vector<FrontierPoint> points;
  for (size_t i = 0; i < count; ++i) {
    const size_t p = count == 1 ? 0 : i * (front.size() - 1) / (count - 1);
    const int64_t bytes =
        measured ? knapsack.Measure(front.Choices(p)) : front.point(p).bytes + constant;
    while (!points.empty() && points.back().plan_bytes >= bytes) points.pop_back();
    points.push_back({bytes, front.point(p).cost});
  }
  return points;
}

constinit const AllocatorDef AllocatorDefs::knapsack = {
    .name = "knapsack",
    .help = "the least total cost within the budget, solved exactly over bytes",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateKnapsack,
};

}  // namespace lwq
