// What the allocators share: how a problem is checked, ranked and costed, and how a plan is
// measured.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {

// Names of the definitions listed in allocators.def: AllocatorDefs::<file>.
struct AllocatorDefs {
#define LWQ_ALLOCATOR(file) static const AllocatorDef file;
#include "worker/engine/plan/allocators.def"
#undef LWQ_ALLOCATOR
};

// INVALID_ARGUMENT: "MENU_INVALID", "COST_INVALID" (missing, wrong count, NaN or infinite),
// "MODEL_TOO_LARGE" (sizes that do not fit 60 bits).
absl::Status CheckProblem(const AllocationProblem& problem);

// What a user should know whose budget is above the largest plan, in the budget's own form; else
// "".
std::string AboveLargestPlan(const AllocationProblem& problem);

// INVALID_ARGUMENT "COST_INVALID" when the problem lacks the costs or scores that `def` needs.
absl::Status CheckCosted(const AllocatorDef& def, const AllocationProblem& problem);

// Layers from most to least important; equal scores keep the order of depth. Scores are
// problem.layer_score or, without it, the sum of the costs of the layer's units at their
// smallest formats.
std::vector<int> RankLayers(const AllocationProblem& problem);

// problem.cost, or costs derived from layer ranks when there are none:
//   cost(u, f) = importance(layer of u) * weights of u * 4^-(bits per weight of u at f),
// importance 1 for the most important layer and for lm_head, 1/L for the least. A quantization
// step's squared error shrinks fourfold a bit; the rank stands for how much of it reaches the
// output.
std::vector<std::vector<double>> UnitCosts(const AllocationProblem& problem);

// Sets the units of `place` to what `from` has for them.
void SetUnits(const ModelInventory& model, Place place, const Plan& from, Plan& plan);

// The sum of the plan's costs; absent units cost nothing.
double PredictedCost(const AllocationProblem& problem,
                     const std::vector<std::vector<double>>& costs, const Plan& plan);

}  // namespace lwq
