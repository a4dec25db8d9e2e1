// Choosing a format for every unit. Pure functions of sizes and costs: no clock, no threads, no
// files. One .cc and one line in allocators.def adds an allocator.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/option.h"
#include "worker/engine/plan/artifact_layout.h"
#include "worker/engine/plan/budget.h"
#include "worker/engine/plan/menu.h"

namespace lwq {

// An order of the layers that some scorer gives: higher = more important, one per layer.
struct Ranking {
  std::string name;
  std::vector<double> layer_score;
};

struct AllocationProblem {
  const ModelInventory* model = nullptr;
  Budget budget;
  int64_t max_shard_bytes = 0;
  Menu menu;  // what each unit may become
  // cost[u][f]: damage of unit u at menu.units[u].formats[f] (mean KL in nats when the scorer is
  // "kl"). Empty when the scorer ranks layers only.
  std::vector<std::vector<double>> cost;
  // Higher = more important, one per layer (lm_head excepted). Empty when the scorer gives costs;
  // then a layer's score is the sum of its units' costs at their smallest formats.
  std::vector<double> layer_score;
  std::vector<Ranking> rankings;  // other orders, for the plans that a better one has to beat
  OptionValues options;           // the allocator's
};

// How a plan does beside a plain one of the same budget, on text that chose neither.
struct Comparison {
  std::string baseline;                  // with its size: baselines.h
  double baseline_kl = 0;                // mean over tokens, nats
  double difference = 0;                 // the plan's KL minus the baseline's
  std::optional<double> standard_error;  // of that difference, paired by blocks; where it is known
};

struct Allocation {
  Plan plan;
  int64_t budget_bytes = 0;       // what was allowed, in the budget's measure
  int64_t plan_bytes = 0;         // what it takes, same measure, exact
  int64_t weight_file_bytes = 0;  // what will be written
  double bits_per_weight = 0;
  // Sum of cost; 0 without costs. Of the knapsack: of costs made non-increasing in bytes.
  double predicted_cost = 0;
  std::string explanation;  // one sentence: what was decided and why
  // Of a plan that was judged; by the baselines' order.
  std::vector<Comparison> comparisons;
};

// A plan that was measured as a whole: not what its units cost one by one, but what it costs.
struct MeasuredPlan {
  Plan plan;
  double kl = 0;       // mean KL from the source, nats
  std::string origin;  // the explanation that it came with
  // Mean KL of each block of the text, the same blocks for every plan.
  std::vector<double> block_kl;
  bool judged = false;  // on the text that decides nothing but this; else on the text of trials
};

struct AllocatorDef {
  absl::string_view name;
  absl::string_view help;  // one line
  bool needs_cost;         // cost must be given
  bool needs_layer_score;  // layer_score or cost must be given
  // FAILED_PRECONDITION "BUDGET_INFEASIBLE" (message has the smallest budget that would do) when
  // even the smallest plan does not fit.
  absl::StatusOr<Allocation> (*allocate)(const AllocationProblem& problem);
  // Of an allocator that ends in measurements: at most so many in all, and the plans of the next
  // round, none of them measured yet; none when it has seen enough. Some may be over the budget:
  // they are measured to learn from. `explanation` says how each was made.
  int max_trials = 0;
  absl::StatusOr<std::vector<Allocation>> (*propose)(
      const AllocationProblem& problem, absl::Span<const MeasuredPlan> measured) = nullptr;
  // All that can be set of it, sorted by name.
  absl::Span<const OptionDef> options = {};
  // The smallest plan that it can come to, before scores are known; null: SmallestPlan.
  Plan (*smallest)(const AllocationProblem& problem) = nullptr;
};

// Sorted by name.
absl::Span<const AllocatorDef* const> Allocators();
// INVALID_ARGUMENT "ALLOCATOR_UNKNOWN" lists the names.
absl::StatusOr<const AllocatorDef*> FindAllocator(absl::string_view name);

// Checks formats against the model, finds the allocator and runs it.
absl::StatusOr<Allocation> Allocate(absl::string_view allocator, const AllocationProblem& problem);

// What an allocator says, given what was measured of its plans so far: plans to measure, or none,
// and what it would choose now. That is `allocate`'s plan while nothing was measured, then the
// plan within the budget with the least KL, the first of equal ones. When the allocator has seen
// enough, that plan and the baselines are measured once more, to be `judged` on text that had no
// part in the choice; where uniform does better there, uniform it is.
struct AllocationStep {
  std::vector<Allocation> to_measure;
  bool judge = false;  // what text they are to be measured on
  Allocation allocation;
};
absl::StatusOr<AllocationStep> NextStep(absl::string_view allocator,
                                        const AllocationProblem& problem,
                                        absl::Span<const MeasuredPlan> measured);

// Fills the byte counts of an allocation from its plan.
void MeasureAllocation(const AllocationProblem& problem, Allocation& allocation);

// The weights that a budget in bits per weight counts: of the units that can be quantized.
int64_t NumQuantizableWeights(const AllocationProblem& problem);
// What the budget allows and what a plan takes, in the budget's own measure. Exact: a budget in
// file bytes lays the artifact out.
int64_t AllowedBytes(const AllocationProblem& problem);
int64_t MeasurePlan(const AllocationProblem& problem, const Plan& plan);
// FAILED_PRECONDITION "BUDGET_INFEASIBLE" when the smallest plan of the allocator is over the
// budget; names the smallest budget that would do, in the budget's own form.
absl::Status CheckFeasible(const AllocatorDef& allocator, const AllocationProblem& problem);
// The bytes of that plan, in the budget's measure.
int64_t SmallestBytes(const AllocatorDef& allocator, const AllocationProblem& problem);
// Every unit at its smallest format, its largest, and at a rung of the menu.
Plan SmallestPlan(const AllocationProblem& problem);
Plan LargestPlan(const AllocationProblem& problem);
Plan PlanAtRung(const AllocationProblem& problem, size_t rung);

// The whole budget-to-cost curve of the knapsack from one run: points ascending in bytes, strictly
// descending in cost. Of a budget in file bytes at most 1,000, evenly chosen, because each is laid
// out to be exact.
struct FrontierPoint {
  int64_t plan_bytes;
  double cost;
};
absl::StatusOr<std::vector<FrontierPoint>> KnapsackFrontier(const AllocationProblem& problem);

}  // namespace lwq
