// What planning says next, from records.
#include "server/dispatch/job_planner.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/dispatch/job_defaults.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

// Four layers of one linear each; it costs six times as much to narrow one as the one before.
class JobPlannerTest : public ::testing::Test {
 protected:
  JobPlannerTest() {
    v1::Inventory& inventory = *manifest_.mutable_inventory();
    inventory.set_num_layers(4);
    inventory.set_weight_dtype("BF16");
    for (int layer = 0; layer < 4; ++layer) {
      v1::InventoryUnit& unit = *inventory.add_units();
      unit.set_name(absl::StrCat("layers.", layer, ".mlp.down_proj"));
      unit.set_layer(layer);
      v1::InventoryLinear& linear = *unit.add_linears();
      linear.set_module(absl::StrCat("model.layers.", layer, ".mlp.down_proj"));
      linear.set_out_features(128);
      linear.set_in_features(128);
      v1::ScoreResult& score = scores_.emplace_back();
      score.set_layer(layer);
      score.set_has_costs(true);
      for (int bits : {2, 3, 4, 8}) {
        v1::UnitCost& cost = *score.add_costs();
        cost.set_unit(unit.name());
        cost.set_bits(bits);
        cost.set_cost(std::pow(6.0, layer) * std::pow(4.0, -bits));
      }
    }
    spec_.mutable_budget()->set_bits_per_weight(3.2);
    FillDefaults(manifest_, spec_);
  }

  v1::ModelManifest manifest_;
  v1::QuantizeSpec spec_;
  std::vector<v1::ScoreResult> scores_;
};

TEST_F(JobPlannerTest, ByDefaultPlansAreMeasuredAndTheBestOfThemIsThePlan) {
  std::vector<v1::PlanTrial> trials;
  PlanStep step;
  for (int rounds = 0; rounds < 10; ++rounds) {
    LWQ_ASSERT_OK_AND_ASSIGN(step, NextPlanStep(spec_, manifest_, scores_, trials));
    if (step.trials.empty()) break;
    ASSERT_EQ(step.formats.size(), step.trials.size());
    for (size_t i = 0; i < step.trials.size(); ++i) {
      ASSERT_EQ(step.trials[i].bits_size(), 4);
      for (int u = 0; u < 4; ++u) {
        EXPECT_EQ(step.trials[i].bits(u), step.formats[i].units(u).bits());
        EXPECT_EQ(step.formats[i].units(u).group_size(), 128);
      }
      v1::TaskOutput output;
      // What no cost tells: three bits throughout are best.
      const auto& bits = step.trials[i].bits();
      const bool all_three = std::all_of(bits.begin(), bits.end(), [](int b) { return b == 3; });
      output.mutable_trial()->set_kl(all_three ? 1 : 2);
      ASSERT_OK(RecordTrial(output, step.trials[i]));
      trials.push_back(step.trials[i]);
    }
  }
  EXPECT_GT(trials.size(), 1u);
  for (const v1::UnitChoice& unit : step.plan.units()) EXPECT_EQ(unit.bits(), 3);
  EXPECT_LE(step.plan.plan_bytes(), step.plan.budget_bytes());
  EXPECT_THAT(step.plan.explanation(), HasSubstr("Lowest measured KL, 1.00000, of 2 plans"));
}

TEST_F(JobPlannerTest, AnAllocatorThatOnlyComputesDecidesAtOnce) {
  spec_.set_allocator("knapsack");
  LWQ_ASSERT_OK_AND_ASSIGN(const PlanStep step, NextPlanStep(spec_, manifest_, scores_, {}));
  EXPECT_TRUE(step.trials.empty());
  EXPECT_EQ(step.plan.units_size(), 4);
}

TEST_F(JobPlannerTest, AnOutputWithoutAMeasurementIsNoKlOfZero) {
  v1::PlanTrial trial;
  trial.set_origin("one width throughout.");
  v1::TaskOutput output;
  output.mutable_score();
  EXPECT_THAT(RecordTrial(output, trial), FailsWith("TRIAL_MISSING", HasSubstr("one width")));
}

TEST_F(JobPlannerTest, ATrialThatCannotBeThisJobsIsRefused) {
  v1::PlanTrial trial;
  for (int u = 0; u < 4; ++u) trial.add_bits(5);
  EXPECT_THAT(NextPlanStep(spec_, manifest_, scores_, {trial}),
              FailsWith("TRIAL_INVALID", HasSubstr("5 bits")));
  trial.clear_bits();
  for (int u = 0; u < 4; ++u) trial.add_bits(2);
  trial.set_kl(std::nan(""));
  EXPECT_THAT(NextPlanStep(spec_, manifest_, scores_, {trial}),
              FailsWith("TRIAL_INVALID", HasSubstr("nan")));
}

}  // namespace
}  // namespace lwq
