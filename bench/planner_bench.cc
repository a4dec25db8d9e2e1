// How long a plan takes: 224 linears at 6 options, the size of an 8 B model. Limit: a second.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

constexpr double kLimitSeconds = 1.0;

// 32 layers of 7 linears, each a unit of its own.
ModelInventory EightBillion() {
  ModelInventory model;
  model.num_layers = 32;
  model.weight_dtype = DType::kBF16;
  model.hidden_size = 4096;
  model.intermediate_size = 14336;
  model.vocab_size = 128256;
  model.dense.push_back(
      {{"model.embed_tokens.weight", DType::kBF16, {128256, 4096}}, Place::Embedding(), ""});
  const struct {
    const char* name;
    int64_t out, in;
  } linears[] = {{"self_attn.q_proj", 4096, 4096}, {"self_attn.k_proj", 1024, 4096},
                 {"self_attn.v_proj", 1024, 4096}, {"self_attn.o_proj", 4096, 4096},
                 {"mlp.gate_proj", 14336, 4096},   {"mlp.up_proj", 14336, 4096},
                 {"mlp.down_proj", 4096, 14336}};
  for (int l = 0; l < model.num_layers; ++l) {
    for (const auto& linear : linears) {
      const std::string name = absl::StrCat("layers.", l, ".", linear.name);
      model.units.push_back({name,
                             Place::Layer(l),
                             {{absl::StrCat("model.", name), linear.out, linear.in, linear.name}},
                             linear.name});
    }
  }
  return model;
}

int Run() {
  const ModelInventory model = EightBillion();
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
  double worst = 0;
  for (const char* budget : {"2.5bpw", "3.25bpw", "5bpw", "4GiB"}) {
    problem.budget = *ParseBudget(budget);
    const auto start = std::chrono::steady_clock::now();
    const absl::StatusOr<Allocation> plan = Allocate("knapsack", problem);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!plan.ok()) {
      std::fprintf(stderr, "%s: %s\n", budget, std::string(plan.status().message()).c_str());
      return 1;
    }
    worst = std::max(worst, seconds);
    std::printf(
        "%-8s %6.3f s  %5.2f %% of the budget used  %s\n", budget, seconds,
        100.0 * static_cast<double>(plan->plan_bytes) / static_cast<double>(plan->budget_bytes),
        plan->explanation.c_str());
  }
  std::printf("planner: %.2f of its limit of %.0f s\n", worst / kLimitSeconds, kLimitSeconds);
  return worst <= kLimitSeconds ? 0 : 1;
}

}  // namespace
}  // namespace lwq

int main() { return lwq::Run(); }
