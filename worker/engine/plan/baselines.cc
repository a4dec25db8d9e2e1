#include "worker/engine/plan/baselines.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

class Collector {
 public:
  explicit Collector(const AllocationProblem& problem) : problem_(problem) {}

  void Add(std::string name, Allocation allocation) {
    for (const Baseline& other : baselines_) {
      if (other.allocation.plan == allocation.plan) return;
    }
    MeasureAllocation(problem_, allocation);  // the cost in the problem's own measure
    absl::StrAppendFormat(&name, ", %.2f bits per weight", allocation.bits_per_weight);
    baselines_.push_back({std::move(name), std::move(allocation)});
  }

  // Whole layers at two formats, the larger for those with the highest scores.
  absl::Status AddTwoLevel(std::string name, const std::vector<double>& layer_score) {
    AllocationProblem ranked = problem_;
    ranked.cost.clear();
    ranked.layer_score = layer_score;
    LWQ_ASSIGN_OR_RETURN(Allocation allocation, AllocatorDefs::two_level.allocate(ranked));
    Add(std::move(name), std::move(allocation));
    return absl::OkStatus();
  }

  std::vector<Baseline> Take() { return std::move(baselines_); }

 private:
  const AllocationProblem& problem_;
  std::vector<Baseline> baselines_;
};

// Higher towards both ends.
std::vector<double> DistanceFromTheMiddle(int num_layers) {
  std::vector<double> distance;
  for (int layer = 0; layer < num_layers; ++layer) {
    distance.push_back(std::abs(layer - (num_layers - 1) / 2.0));
  }
  return distance;
}

}  // namespace

absl::StatusOr<std::vector<Baseline>> Baselines(const AllocationProblem& problem) {
  Collector collector(problem);
  LWQ_ASSIGN_OR_RETURN(Allocation uniform, AllocatorDefs::uniform.allocate(problem));
  collector.Add("uniform", std::move(uniform));
  LWQ_RETURN_IF_ERROR(collector.AddTwoLevel("first and last layers",
                                            DistanceFromTheMiddle(problem.model->num_layers)));
  if (!problem.cost.empty() || !problem.layer_score.empty()) {
    LWQ_ASSIGN_OR_RETURN(Allocation two_level, AllocatorDefs::two_level.allocate(problem));
    collector.Add("two formats by the layers' scores", std::move(two_level));
  }
  for (const Ranking& ranking : problem.rankings) {
    LWQ_RETURN_IF_ERROR(
        collector.AddTwoLevel(absl::StrCat("two formats by ", ranking.name), ranking.layer_score));
  }
  return collector.Take();
}

PairedDifference Compare(const std::vector<double>& kl, const std::vector<double>& baseline_kl) {
  PairedDifference difference;
  if (kl.empty() || kl.size() != baseline_kl.size()) return difference;
  const double n = static_cast<double>(kl.size());
  for (size_t i = 0; i < kl.size(); ++i) difference.mean += (kl[i] - baseline_kl[i]) / n;
  if (kl.size() < 2) return difference;
  double squares = 0;
  for (size_t i = 0; i < kl.size(); ++i) {
    const double off = kl[i] - baseline_kl[i] - difference.mean;
    squares += off * off;
  }
  difference.standard_error = std::sqrt(squares / (n - 1) / n);
  return difference;
}

}  // namespace lwq
