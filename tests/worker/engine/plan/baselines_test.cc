#include "worker/engine/plan/baselines.h"

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class BaselinesTest : public ::testing::Test {
 protected:
  BaselinesTest() : model_(testing::LlamaInventory({})) {
    problem_.model = &model_;
    problem_.menu = testing::MenuFor(model_, {2, 4, 8});
    problem_.budget = *ParseBudget("3.1bpw");
    for (int layer = 0; layer < 12; ++layer) problem_.layer_score.push_back(layer);
  }

  // The layers whose units are at `bits`.
  std::vector<int> LayersAt(const Plan& plan, int bits) const {
    std::vector<int> layers;
    for (size_t u = 0; u < plan.size(); u += 4) {
      if (plan[u] == testing::Width(bits)) layers.push_back(static_cast<int>(u / 4));
    }
    return layers;
  }

  ModelInventory model_;
  AllocationProblem problem_;
};

TEST_F(BaselinesTest, AreThePlainPlansOfTheBudget) {
  std::vector<double> reversed;
  for (int layer = 0; layer < 12; ++layer) reversed.push_back(-layer);
  problem_.rankings = {{"lim", reversed}, {"zd", problem_.layer_score}};
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<Baseline> baselines, Baselines(problem_));
  std::vector<std::string> names;
  for (const Baseline& baseline : baselines) names.push_back(baseline.name);
  // zd's order is the problem's own: the same plan once.
  EXPECT_THAT(names, ElementsAre(StartsWith("uniform, 2.1"), StartsWith("first and last layers, "),
                                 StartsWith("two formats by the layers' scores, "),
                                 StartsWith("two formats by lim, ")));
  // Where one format is much larger than the next, uniform leaves a part of the budget.
  EXPECT_NE(names[0].substr(names[0].find(',')), names[1].substr(names[1].find(',')));
  EXPECT_THAT(LayersAt(baselines[0].allocation.plan, 2).size(), 12);
  EXPECT_THAT(LayersAt(baselines[1].allocation.plan, 4), ElementsAre(0, 1, 2, 10, 11));
  EXPECT_THAT(LayersAt(baselines[2].allocation.plan, 4), ElementsAre(7, 8, 9, 10, 11));
  EXPECT_THAT(LayersAt(baselines[3].allocation.plan, 4), ElementsAre(0, 1, 2, 3, 4));
  for (const Baseline& baseline : baselines) {
    EXPECT_LE(baseline.allocation.plan_bytes, AllowedBytes(problem_)) << baseline.name;
  }
}

// By hand: differences -1, -3, -2: mean -2, variance 1, standard error sqrt(1 / 3).
TEST(CompareTest, IsPairedByBlocks) {
  const PairedDifference difference = Compare({10, 20, 30}, {11, 23, 32});
  EXPECT_DOUBLE_EQ(difference.mean, -2);
  EXPECT_DOUBLE_EQ(difference.standard_error.value(), std::sqrt(1.0 / 3));
  EXPECT_EQ(Compare({1, 2}, {1}).mean, 0);
  EXPECT_EQ(Compare({}, {}).standard_error, std::nullopt);
  EXPECT_EQ(Compare({1}, {3}).mean, -2);
  EXPECT_EQ(Compare({1}, {3}).standard_error, std::nullopt)
      << "one block says nothing of its error";
}

// The whole way of `lwq`: trials, then the judgement on other text.
class JudgementTest : public BaselinesTest {
 protected:
  // Plays until nothing is to be measured; `judged_kl` is what a plan does on the judge's text.
  Allocation Play(const std::function<double(const Plan&)>& judged_kl) {
    for (int round = 0; round < 10; ++round) {
      const auto step = NextStep("lwq", problem_, measured_);
      EXPECT_OK(step);
      if (!step.ok() || step->to_measure.empty()) {
        return step.ok() ? step->allocation : Allocation();
      }
      for (const Allocation& plan : step->to_measure) {
        MeasuredPlan measured{plan.plan, 0, plan.explanation, {}, step->judge};
        // Trials like layers at four bits in front.
        double kl = 10;
        for (int layer : LayersAt(plan.plan, 4)) kl -= 1.0 / (layer + 1);
        if (step->judge) kl = judged_kl(plan.plan);
        measured.kl = kl;
        measured.block_kl = {kl - 0.25, kl + 0.25};
        measured_.push_back(measured);
        num_judged_ += step->judge;
      }
    }
    return Allocation();
  }

  std::vector<MeasuredPlan> measured_;
  int num_judged_ = 0;
};

TEST_F(JudgementTest, TheWinnerIsHeldAgainstEveryBaselineOnTextThatChoseNothing) {
  Plan winner;
  const Allocation chosen = Play([&](const Plan& plan) {
    if (winner.empty()) winner = plan;  // the first contender is the trials' winner
    return plan == winner ? 1.0 : 2.0;
  });
  EXPECT_EQ(chosen.plan, winner);
  EXPECT_GE(num_judged_, 3);
  ASSERT_GE(chosen.comparisons.size(), 2u);
  EXPECT_THAT(chosen.comparisons[0].baseline, StartsWith("uniform, "));
  for (const Comparison& comparison : chosen.comparisons) {
    EXPECT_EQ(comparison.baseline_kl, 2);
    EXPECT_EQ(comparison.difference, -1);
    EXPECT_EQ(comparison.standard_error, 0);
  }
}

TEST_F(JudgementTest, UniformIsTakenWhereItDoesBetterOnTextThatChoseNothing) {
  LWQ_ASSERT_OK_AND_ASSIGN(const Allocation uniform, Allocate("uniform", problem_));
  const Allocation chosen =
      Play([&](const Plan& plan) { return plan == uniform.plan ? 1.0 : 1.5; });
  EXPECT_EQ(chosen.plan, uniform.plan);
  EXPECT_THAT(chosen.explanation, HasSubstr("On text that chose nothing it does better (1.00000)"));
  for (const Comparison& comparison : chosen.comparisons) EXPECT_EQ(comparison.difference, -0.5);
}

}  // namespace
}  // namespace lwq
