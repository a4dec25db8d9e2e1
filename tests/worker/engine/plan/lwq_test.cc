// The allocator that measures, played against models of damage whose best plan is known.
#include <cmath>
#include <functional>
#include <set>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;

using Damage = std::function<double(const Plan&)>;

class LwqTest : public ::testing::Test {
 protected:
  LwqTest() : model_(testing::LlamaInventory({})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {2, 3, 4, 8});
    problem_.budget = *ParseBudget("3.1bpw");
    for (size_t u = 0; u < model_.units.size(); ++u) {
      std::vector<double> row;
      for (int bits : {2, 3, 4, 8}) {
        row.push_back((1.0 + static_cast<double>(u * 7 % 5)) * std::pow(4.0, -bits));
      }
      problem_.cost.push_back(std::move(row));
    }
  }

  // The units' costs times what `factor` says of the unit.
  Damage Times(const std::function<double(const AllocationUnit&)>& factor) const {
    return [this, factor](const Plan& plan) {
      const std::vector<std::vector<double>> costs = UnitCosts(problem_);
      double damage = 0;
      for (size_t u = 0; u < plan.size(); ++u) {
        const int f = problem_.menu.units[u].Find(plan[u]);
        EXPECT_GE(f, 0);
        damage += factor(model_.units[u]) * costs[u][static_cast<size_t>(f)];
      }
      return damage;
    };
  }

  // Plays all rounds.
  Allocation Play(const Damage& damage) {
    measured_.clear();
    for (num_rounds_ = 0;; ++num_rounds_) {
      auto step = NextStep("lwq", problem_, measured_);
      EXPECT_OK(step);
      if (!step.ok() || step->to_measure.empty()) {
        return step.ok() ? step->allocation : Allocation();
      }
      for (const Allocation& plan : step->to_measure) {
        EXPECT_EQ(plan.plan_bytes, MeasurePlan(problem_, plan.plan));
        measured_.push_back({plan.plan, damage(plan.plan), plan.explanation, {}, step->judge});
      }
    }
  }

  ModelInventory model_;
  AllocationProblem problem_;
  std::vector<MeasuredPlan> measured_;
  int num_rounds_ = 0;
};

TEST_F(LwqTest, NoPlanIsMeasuredTwiceNorMoreThanAnnounced) {
  Play(Times([](const AllocationUnit&) { return 1.0; }));
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocatorDef* def, FindAllocator("lwq"));
  EXPECT_LE(static_cast<int>(measured_.size()), def->max_trials);
  for (size_t a = 0; a < measured_.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      EXPECT_TRUE(measured_[a].plan != measured_[b].plan ||
                  measured_[a].judged != measured_[b].judged)
          << a << " and " << b;
    }
  }
  EXPECT_LE(num_rounds_, 4);  // the last one judges
}

TEST_F(LwqTest, WhereCostsAddUpTheKnapsackWins) {
  const Allocation chosen = Play(Times([](const AllocationUnit&) { return 1.0; }));
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation knapsack, Allocate("knapsack", problem_));
  EXPECT_EQ(chosen.plan, knapsack.plan);
  EXPECT_THAT(chosen.explanation, HasSubstr("the units' own costs."));
}

// Errors of early layers cost three times what they cost alone, and those of down_proj twice: what
// the probes are for. The best plan of the true costs is known.
TEST_F(LwqTest, FindsWhatCostsHideByDepthAndKind) {
  const Damage damage = Times([](const AllocationUnit& unit) {
    return (unit.place.layer < 6 ? 3.0 : 1.0) *
           (unit.name.find("down_proj") != std::string::npos ? 2.0 : 1.0);
  });
  const Allocation chosen = Play(damage);
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation knapsack, Allocate("knapsack", problem_));
  AllocationProblem known = problem_;
  for (size_t u = 0; u < model_.units.size(); ++u) {
    for (double& cost : known.cost[u]) {
      cost *= (model_.units[u].place.layer < 6 ? 3.0 : 1.0) *
              (model_.units[u].name.find("down_proj") != std::string::npos ? 2.0 : 1.0);
    }
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation best, Allocate("knapsack", known));
  ASSERT_LT(damage(best.plan), 0.98 * damage(knapsack.plan));
  EXPECT_LE(damage(chosen.plan), 1.002 * damage(best.plan));
}

// Where engines fuse nothing there are more kinds, and each is looked at.
TEST_F(LwqTest, EveryKindOfUnitIsProbed) {
  model_ = testing::Unfused(testing::LlamaInventory({.tied = false}));
  problem_.menu = testing::MenuFor(model_, {2, 3, 4, 8});
  problem_.cost.assign(model_.units.size(), {16, 4, 1, 0.1});
  Play(Times([](const AllocationUnit&) { return 1.0; }));
  std::set<std::string> probed, kinds;
  for (const AllocationUnit& unit : model_.units) kinds.insert(unit.kind);
  for (const MeasuredPlan& plan : measured_) {
    for (const std::string& kind : kinds) {
      if (plan.origin.find(" with " + kind + " one format up") != std::string::npos) {
        probed.insert(kind);
      }
    }
  }
  EXPECT_GE(kinds.size(), 7u);
  EXPECT_EQ(probed, kinds);
}

TEST_F(LwqTest, WhatIsOverTheBudgetIsLearntFromAndNeverChosen) {
  const Allocation chosen = Play(Times([](const AllocationUnit&) { return 1.0; }));
  const int64_t allowed = AllowedBytes(problem_);
  double least = 1e9, least_over = 1e9, of_chosen = -1;
  for (const MeasuredPlan& plan : measured_) {
    const bool over = MeasurePlan(problem_, plan.plan) > allowed;
    (over ? least_over : least) = std::min(over ? least_over : least, plan.kl);
    if (plan.plan == chosen.plan) of_chosen = plan.kl;
  }
  EXPECT_LT(least_over, least);
  EXPECT_EQ(of_chosen, least);
  EXPECT_LE(chosen.plan_bytes, allowed);
}

// Groups of 32 are worth less than their costs say, so the mixture by costs is worse than the best
// plan in groups of 128, and corrections by depth and kind cannot see why.
TEST_F(LwqTest, OfSeveralGroupSizesTheBestSingleOneIsFound) {
  const auto cost = [](size_t u, const WeightFormat* format, double worth_of_a_scale) {
    const double scales = 16.0 / static_cast<double>(format->grid()->group_size());
    return (1.0 + static_cast<double>(u * 7 % 5)) *
           std::pow(4.0, -format->grid()->bits() - worth_of_a_scale * scales);
  };
  const auto use = [&](std::vector<int64_t> group_sizes) {
    MenuRequest request;
    request.formats = {"int2", "int3", "int4"};
    request.group_sizes = std::move(group_sizes);
    problem_.menu = *BuildMenu(model_, **FindProfile("transformers"), request);
    problem_.cost.clear();
    for (size_t u = 0; u < model_.units.size(); ++u) {
      std::vector<double>& row = problem_.cost.emplace_back();
      for (const WeightFormat* format : problem_.menu.units[u].formats) {
        row.push_back(format->dense() ? 0 : cost(u, format, 1.3));
      }
    }
  };
  const Damage damage = [&](const Plan& plan) {
    double sum = 0;
    for (size_t u = 0; u < plan.size(); ++u) {
      if (!plan[u]->dense()) sum += cost(u, plan[u], 0);
    }
    return sum;
  };
  use({128});
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation single, Allocate("knapsack", problem_));
  use({32, 128});
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation mixed, Allocate("knapsack", problem_));
  ASSERT_GT(damage(mixed.plan), 1.1 * damage(single.plan));
  EXPECT_LE(damage(Play(damage).plan), damage(single.plan));
}

// 128 does not divide the hidden size, so most units have groups of 64 at most: "in groups of 128"
// leaves those as they are, and makes none of them dense.
TEST_F(LwqTest, UnitsThatAGroupSizeDoesNotFitKeepTheirChoice) {
  model_ = testing::LlamaInventory(
      {.layers = 4, .hidden = 576, .intermediate = 1536, .heads = 9, .kv_heads = 3});
  MenuRequest request;
  request.group_sizes = {32, 128};
  problem_.menu = *BuildMenu(model_, **FindProfile("vllm-lowbit"), request);
  problem_.budget = *ParseBudget("4.0bpw");
  problem_.layer_score.clear();
  problem_.cost.clear();
  for (const UnitMenu& menu : problem_.menu.units) {
    std::vector<double>& row = problem_.cost.emplace_back();
    // Ascending in bytes: each format is worth more than the one before, groups of 32 most of all.
    for (size_t f = 0; f < menu.formats.size(); ++f) {
      const GridFormat* grid = menu.formats[f]->grid();
      row.push_back(
          grid == nullptr ? 0 : std::pow(4.0, -grid->bits()) * (grid->group_size() == 32 ? 1 : 3));
    }
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationStep step, NextStep("lwq", problem_, {}));
  int in_groups_of_128 = 0;
  for (const Allocation& plan : step.to_measure) {
    if (!absl::StrContains(plan.explanation, "in groups of 128")) continue;
    ++in_groups_of_128;
    EXPECT_LE(plan.plan_bytes, plan.budget_bytes);
    for (size_t u = 0; u < plan.plan.size(); ++u) {
      const GridFormat* grid = plan.plan[u]->grid();
      ASSERT_NE(grid, nullptr) << model_.units[u].name;
      const bool fits = model_.units[u].linears[0].in_features % 128 == 0;
      EXPECT_EQ(grid->group_size() == 128, fits) << model_.units[u].name;
    }
  }
  EXPECT_GT(in_groups_of_128, 0);
}

TEST_F(LwqTest, OnePossiblePlanNeedsNoMeasurement) {
  problem_.budget = *ParseBudget("16bpw");
  const Allocation chosen = Play([](const Plan&) { return 0.0; });
  EXPECT_TRUE(measured_.empty());
  for (const WeightFormat* format : chosen.plan) EXPECT_EQ(format, testing::Width(8));
}

TEST_F(LwqTest, RanksOfLayersWillDoAndMeasuringCorrectsThem) {
  problem_.cost.clear();
  for (int layer = 0; layer < model_.num_layers; ++layer) problem_.layer_score.push_back(layer);
  // In truth it is the other way round.
  const Damage damage =
      Times([&](const AllocationUnit& unit) { return std::pow(0.5, unit.place.layer); });
  const Allocation chosen = Play(damage);
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation knapsack, Allocate("knapsack", problem_));
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation uniform, Allocate("uniform", problem_));
  EXPECT_LT(damage(chosen.plan), 0.9 * damage(knapsack.plan));
  EXPECT_LT(damage(chosen.plan), 0.9 * damage(uniform.plan));
}

TEST_F(LwqTest, AnotherModelsTrialsAreRefused) {
  const std::vector<MeasuredPlan> measured = {{{testing::Width(2)}, 1.0, "another."}};
  EXPECT_EQ(NextStep("lwq", problem_, measured).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lwq
