// The plain plans that a better one has to beat: what anybody would do with the same budget.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {

struct Baseline {
  // With its size, which may be well below the budget where one format is much larger than the next:
  // "uniform, 3.25 bits per weight", "two formats by lim, 3.98 bits per weight".
  std::string name;
  Allocation allocation;
};

// All within the budget: one format throughout; two formats, with the larger for the first and last
// layers, for the layers that the problem's own scores rank first, and for those that each of
// problem.rankings does. Plans that are the same are listed once, under the first name.
absl::StatusOr<std::vector<Baseline>> Baselines(const AllocationProblem& problem);

// `kl` minus `baseline_kl`, block by block of the same text: the mean, and the standard error of
// that mean with the blocks taken as independent, which takes two. Zero and none where the blocks
// do not match.
struct PairedDifference {
  double mean = 0;
  std::optional<double> standard_error;
};
PairedDifference Compare(const std::vector<double>& kl, const std::vector<double>& baseline_kl);

}  // namespace lwq
