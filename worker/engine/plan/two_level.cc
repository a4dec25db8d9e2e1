// The budget rule of layer-wise quantization by importance (Dumitru et al., arXiv 2406.17415):
// layers in order of importance take the high width while the budget lasts, the others the low one.
// For N layers of one size that is k = floor(N (M - M_low) / (M_high - M_low)) layers at the high
// width.
//
// Of more than two formats it uses the neighbours between which the budget lies: the largest format
// that fits everywhere and the next. A layer that does not fit is left low and the walk goes on, so
// that unequal layers use what is left; equal ones all stop together, as in the rule. lm_head has
// no place in a ranking of layers and is promoted last.
#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

// Sets the units of `layer` to `format`.
void SetLayer(const ModelInventory& model, int layer, const UnitFormat& format,
              std::vector<UnitFormat>& formats) {
  for (size_t u = 0; u < model.units.size(); ++u) {
    if (model.units[u].layer == layer) formats[u] = format;
  }
}

absl::StatusOr<Allocation> AllocateTwoLevel(const AllocationProblem& problem) {
  const ModelInventory& model = *problem.model;
  const int64_t allowed = BudgetBytes(problem.budget, model);
  size_t low = problem.formats.size() - 1;
  Allocation allocation;
  for (;; --low) {
    allocation.formats.assign(model.units.size(), problem.formats[low]);
    if (low == 0 || MeasurePlan(problem, allocation.formats) <= allowed) break;
  }
  if (low + 1 == problem.formats.size()) {
    allocation.explanation = absl::StrCat("Every layer is ", FormatName(problem.formats[low]),
                                          ", the widest there is: the budget holds it.");
    MeasureAllocation(problem, allocation);
    return allocation;
  }
  const UnitFormat& high = problem.formats[low + 1];
  std::vector<int> order = RankLayers(problem);
  const size_t num_layers = order.size();
  bool has_head = false;
  for (const AllocationUnit& unit : model.units) has_head = has_head || unit.layer < 0;
  if (has_head) order.push_back(-1);

  size_t promoted = 0;
  bool head_promoted = false;
  for (int layer : order) {
    std::vector<UnitFormat> candidate = allocation.formats;
    SetLayer(model, layer, high, candidate);
    if (MeasurePlan(problem, candidate) > allowed) continue;
    allocation.formats = std::move(candidate);
    if (layer < 0) {
      head_promoted = true;
    } else {
      ++promoted;
    }
  }
  allocation.explanation = absl::StrCat(
      promoted, " of ", num_layers, " layers are ", FormatName(high),
      ", the most important first, and the others ", FormatName(problem.formats[low]),
      has_head
          ? absl::StrCat("; lm_head is ", FormatName(head_promoted ? high : problem.formats[low]))
          : "",
      ".");
  MeasureAllocation(problem, allocation);
  return allocation;
}

}  // namespace

constinit const AllocatorDef AllocatorDefs::two_level = {
    .name = "two-level",
    .help = "the most important layers at one width, the others at the next lower",
    .needs_cost = false,
    .needs_layer_score = true,
    .allocate = &AllocateTwoLevel,
};

}  // namespace lwq
