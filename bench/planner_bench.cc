// How long a plan takes, of models of 8 B and 70 B: each linear a unit with 6 options. Limit: a
// second.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocator.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

constexpr double kLimitSeconds = 1.0;

struct Model {
  const char* name;
  testing::LlamaShape shape;
};
constexpr Model kModels[] = {{"8B",
                              {.layers = 32,
                               .hidden = 4096,
                               .intermediate = 14336,
                               .heads = 32,
                               .kv_heads = 8,
                               .vocab = 128256}},
                             {"70B",
                              {.layers = 80,
                               .hidden = 8192,
                               .intermediate = 28672,
                               .heads = 64,
                               .kv_heads = 8,
                               .vocab = 128256}}};

// The longest time; below 0 where planning failed.
double Run(const Model& named) {
  const ModelInventory model = testing::Unfused(testing::LlamaInventory(named.shape));
  AllocationProblem problem;
  problem.model = &model;
  problem.menu = BuildMenu(model, **FindProfile("transformers"),
                           {.formats = {"int2", "int3", "int4", "int6", "int8", "dense"}})
                     .value();
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (size_t u = 0; u < model.units.size(); ++u) {
    const double scale = std::exp(1.5 * normal(random));
    std::vector<double> row;
    for (int bits : {2, 3, 4, 6, 8, 16}) {
      row.push_back(scale * std::exp(0.3 * normal(random)) * std::ldexp(1.0, -2 * bits));
    }
    problem.cost.push_back(row);
  }
  const int64_t source_bytes =
      WeightFileBytes(model, Plan(model.units.size(), DenseFormat()), /*max_shard_bytes=*/0);
  double worst = 0;
  for (const char* budget : {"2.5bpw", "3.25bpw", "5bpw", "25%"}) {
    problem.budget = ResolveShare(*ParseBudget(budget), source_bytes);
    const auto start = std::chrono::steady_clock::now();
    const absl::StatusOr<Allocation> plan = Allocate("knapsack", problem);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!plan.ok()) {
      std::fprintf(stderr, "%s: %s\n", budget, std::string(plan.status().message()).c_str());
      return -1;
    }
    worst = std::max(worst, seconds);
    std::printf(
        "%-4s %-8s %6.3f s  %8.4f %% of the budget used, cost %.6f  %s\n", named.name, budget,
        seconds,
        100.0 * static_cast<double>(plan->plan_bytes) / static_cast<double>(plan->budget_bytes),
        plan->predicted_cost, plan->explanation.c_str());
  }
  std::printf("planner, %s: %.2f of its limit of %.0f s\n", named.name, worst / kLimitSeconds,
              kLimitSeconds);
  return worst;
}

}  // namespace
}  // namespace lwq

int main() {
  bool within = true;
  for (const lwq::Model& model : lwq::kModels) {
    const double seconds = lwq::Run(model);
    within = within && seconds >= 0 && seconds <= lwq::kLimitSeconds;
  }
  return within ? 0 : 1;
}
