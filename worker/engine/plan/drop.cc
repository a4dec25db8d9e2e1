// Pruning of whole layers (methods 1.4), the other way to a smaller model: as few layers as the
// budget asks for are left out, the least important first, and those that are kept are stored at
// the largest format. In which order they go is the scorer's matter (bi, angular, lim), or their
// depth: from the last but one backwards, the simple rule that the last layer stays.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

constexpr OptionDef kOrder = {
    .name = "order",
    .type = OptionDef::Type::kChoice,
    .default_value = "importance",
    .choices = "importance,depth",
    .help =
        "which layers go first: what the scorer finds least important, or the deepest but the last",
};
constexpr OptionDef kOptions[] = {kOrder};

// The layers in the order in which they go; one is always left.
std::vector<int> OrderOfGoing(const AllocationProblem& problem) {
  std::vector<int> order;
  if (problem.options.Choice(kOrder.name).empty() ||
      problem.options.Choice(kOrder.name) == kOrder.default_value) {
    order = RankLayers(problem);
    std::reverse(order.begin(), order.end());
  } else {
    for (int layer = problem.model->num_layers - 2; layer >= 0; --layer) order.push_back(layer);
    order.push_back(problem.model->num_layers - 1);
  }
  if (!order.empty()) order.pop_back();
  return order;
}

std::string Explain(const std::vector<int>& dropped, int num_layers, const std::string& rung) {
  if (dropped.empty()) return absl::StrCat("No layer has to go: every one is ", rung, ".");
  return absl::StrCat(dropped.size() == 1 ? "Layer " : "Layers ", absl::StrJoin(dropped, ", "),
                      " of ", num_layers, dropped.size() == 1 ? " is" : " are",
                      " left out; the others are ", rung, ".");
}

// One layer is left, whichever it is; all of them where the model cannot lose one.
Plan Smallest(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  Plan plan = SmallestPlan(problem);
  const Plan absent(plan.size(), nullptr);
  for (int layer = 0; layer + 1 < model.num_layers; ++layer) {
    SetUnits(model, Place::Layer(layer), absent, plan);
  }
  const bool may_drop = model.artifact_format->may_drop_layers && CheckKept(model, plan).ok();
  return may_drop ? plan : SmallestPlan(problem);
}

absl::StatusOr<Allocation> AllocateDrop(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  if (!model.artifact_format->may_drop_layers) {
    return Failure(reasons::kFormatUnsupported,
                   absl::StrCat("allocator drop leaves layers out, which artifacts of the kind ",
                                model.artifact_format->name,
                                " are not made of; choose another "
                                "profile"));
  }
  const int64_t allowed = AllowedBytes(problem);
  const std::vector<int> order = OrderOfGoing(problem);
  Allocation allocation;
  for (size_t rung = problem.menu.rungs.size(); rung-- > 0;) {
    Plan plan = PlanAtRung(problem, rung);
    const Plan absent(plan.size(), nullptr);
    for (size_t count = 0; count <= order.size(); ++count) {
      if (count > 0) SetUnits(model, Place::Layer(order[count - 1]), absent, plan);
      if (const absl::Status kept = CheckKept(model, plan); !kept.ok()) {
        return Failure(reasons::kFormatUnsupported, kept.message());
      }
      if (MeasurePlan(problem, plan) > allowed) continue;
      std::vector<int> dropped(order.begin(), order.begin() + static_cast<int64_t>(count));
      std::sort(dropped.begin(), dropped.end());
      allocation.plan = std::move(plan);
      allocation.explanation = Explain(dropped, model.num_layers, problem.menu.rungs[rung]);
      MeasureAllocation(problem, allocation);
      return allocation;
    }
  }
  allocation.plan = Smallest(problem);
  allocation.explanation = "One layer is left, at its smallest format: nothing larger fits.";
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::drop = {
    .name = "drop",
    .help = "leaves out the layers that matter least; the others stay at the largest format",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateDrop,
    .options = kOptions,
    .smallest = &Smallest,
};

}  // namespace lwq
