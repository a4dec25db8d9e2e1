// What planning says next, from records.
#include "server/dispatch/job_planner.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "records/plan_records.h"
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
      unit.set_part(v1::PART_LAYER);
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
        cost.set_format(absl::StrCat("int", bits, "-g128"));
        cost.set_cost(std::pow(6.0, layer) * std::pow(4.0, -bits));
      }
    }
    spec_.mutable_budget()->set_bits_per_weight(3.2);
    FillDefaults(manifest_, spec_);
  }

  v1::ModelManifest manifest_;
  MemoryQuestion memory_;  // of a method that needs nothing
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
      ASSERT_EQ(step.trials[i].formats_size(), 4);
      for (int u = 0; u < 4; ++u) {
        EXPECT_EQ(step.trials[i].formats(u), step.formats[i].units(u).format());
      }
      v1::TaskOutput output;
      // What no cost tells: three bits throughout are best.
      const auto& formats = step.trials[i].formats();
      const bool all_three = std::all_of(formats.begin(), formats.end(),
                                         [](const std::string& f) { return f == "int3-g128"; });
      output.mutable_trial()->set_kl(all_three ? 1 : 2);
      ASSERT_OK(RecordTrial(output, step.trials[i]));
      trials.push_back(step.trials[i]);
    }
  }
  EXPECT_GT(trials.size(), 1u);
  for (const v1::UnitChoice& unit : step.plan.units()) EXPECT_EQ(unit.format(), "int3-g128");
  EXPECT_LE(step.plan.plan_bytes(), step.plan.budget_bytes());
  EXPECT_THAT(step.plan.explanation(), HasSubstr("Lowest measured KL, 1.00000, of 2 plans"));
}

TEST_F(JobPlannerTest, AnAllocatorThatOnlyComputesDecidesAtOnce) {
  spec_.set_allocator("knapsack");
  LWQ_ASSERT_OK_AND_ASSIGN(const PlanStep step, NextPlanStep(spec_, manifest_, scores_, {}));
  EXPECT_TRUE(step.trials.empty());
  EXPECT_EQ(step.plan.units_size(), 4);
}

// Groups of 128 do not divide 576 inputs; the job says so nowhere and is planned all the same.
TEST_F(JobPlannerTest, EachUnitHasAMenuOfItsOwn) {
  v1::InventoryUnit& unit = *manifest_.mutable_inventory()->mutable_units(1);
  unit.mutable_linears(0)->set_in_features(576);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto products, ProductsOf(spec_, manifest_));
  ASSERT_EQ(products.size(), 4u);
  EXPECT_THAT(products.at(0)[0].formats(),
              ::testing::ElementsAre("int2-g128", "int3-g128", "int4-g128", "int8-g128"));
  EXPECT_THAT(products.at(1)[0].formats(),
              ::testing::ElementsAre("int2-g64", "int3-g64", "int4-g64", "int8-g64"));
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility feasible, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_TRUE(feasible.warnings.empty());
  unit.mutable_linears(0)->set_in_features(100);
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility partly, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_THAT(partly.warnings, ::testing::ElementsAre(HasSubstr("layers.1.mlp.down_proj stays")));
}

// However it was said that a method is not to refine, less memory is forecast.
TEST_F(JobPlannerTest, TheForecastKnowsOfRefinementByOptionAndByField) {
  memory_.runs_source = memory_.moments = memory_.factors = true;
  for (v1::InventoryUnit& unit : *manifest_.mutable_inventory()->mutable_units()) {
    unit.mutable_linears(0)->set_in_features(8192);
  }
  std::vector<int64_t> bytes;
  for (const char* said : {"", "field", "option", "the other option"}) {
    v1::QuantizeSpec spec = spec_;
    if (said == std::string("field")) spec.set_no_refinement(true);
    if (said == std::string("option")) (*spec.mutable_method_options())["refinement"] = "false";
    if (said == std::string("the other option")) {
      (*spec.mutable_method_options())["refinement"] = "true";
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility feasible,
                             CheckFeasibility(spec, manifest_, memory_));
    bytes.push_back(feasible.memory.quantize_bytes);
  }
  EXPECT_LT(bytes[1], bytes[0]);
  EXPECT_EQ(bytes[2], bytes[1]);
  EXPECT_EQ(bytes[3], bytes[0]);
}

// Whatever scores the layers, the plain orders are among the plans that the chosen one has to beat.
TEST_F(JobPlannerTest, OrdersOfOtherScorersAreTriedBesideOneThatRanks) {
  for (v1::ScoreResult& score : scores_) {
    const int layer = score.layer();
    score.Clear();
    score.set_layer(layer);
    score.set_layer_score(layer);
    (*score.mutable_rankings())["zd"] = layer == 1 ? 2 : layer == 3 ? 1 : 0;
  }
  spec_.mutable_budget()->set_bits_per_weight(2.6);  // one layer of four a bit more than the others
  LWQ_ASSERT_OK_AND_ASSIGN(const PlanStep step, NextPlanStep(spec_, manifest_, scores_, {}));
  std::vector<std::string> origins;
  for (const v1::PlanTrial& trial : step.trials) origins.push_back(trial.origin());
  EXPECT_THAT(origins, ::testing::Contains(HasSubstr("two formats by zd")));
}

TEST_F(JobPlannerTest, AShareIsOfTheSourcesWeightFiles) {
  manifest_.set_weight_bytes(100'000);
  spec_.mutable_budget()->set_source_percent(50);
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility feasible, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_EQ(feasible.budget_bytes, 50'000);
  spec_.set_allocator("knapsack");
  LWQ_ASSERT_OK_AND_ASSIGN(const PlanStep step, NextPlanStep(spec_, manifest_, scores_, {}));
  EXPECT_LE(step.plan.weight_file_bytes(), 50'000);
}

TEST_F(JobPlannerTest, ASourceOfFewerBytesThanItsFloatsIsWarnedOf) {
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility first, CheckFeasibility(spec_, manifest_, memory_));
  manifest_.set_weight_bytes(first.source_bytes);
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility whole, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_TRUE(whole.warnings.empty());
  manifest_.set_weight_bytes(first.source_bytes / 2);
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility half, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_THAT(half.warnings, ::testing::ElementsAre(HasSubstr("it is quantized already")));
  manifest_.set_weight_bytes(1000);  // less than any plan has
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility larger, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_THAT(larger.warnings, ::testing::ElementsAre(HasSubstr("it is quantized already"),
                                                      HasSubstr("more than the source's 1000")));
}

TEST_F(JobPlannerTest, ABudgetAboveTheLargestPlanIsSaidInItsOwnForm) {
  spec_.mutable_budget()->set_bits_per_weight(17);
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility feasible, CheckFeasibility(spec_, manifest_, memory_));
  ASSERT_EQ(feasible.warnings.size(), 1u);
  EXPECT_THAT(feasible.warnings[0],
              ::testing::ContainsRegex("budget 17(\\.0+)?bpw .* is above "
                                       "the largest plan, which .*bpw holds"));
}

TEST_F(JobPlannerTest, AJobThatWouldQuantizeNothingIsRefusedAtOnce) {
  spec_.clear_formats();
  spec_.add_formats("dense");
  spec_.mutable_budget()->set_file_bytes(1'000'000);
  EXPECT_THAT(CheckFeasibility(spec_, manifest_, memory_),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("dense is the only format")));
  spec_.add_formats("int4");
  for (v1::InventoryUnit& unit : *manifest_.mutable_inventory()->mutable_units()) {
    unit.mutable_linears(0)->set_in_features(100);
  }
  EXPECT_THAT(CheckFeasibility(spec_, manifest_, memory_),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("down_proj: ")));
}

TEST_F(JobPlannerTest, AnOutputWithoutAMeasurementIsNoKlOfZero) {
  v1::PlanTrial trial;
  trial.set_origin("one format throughout.");
  v1::TaskOutput output;
  output.mutable_score();
  EXPECT_THAT(RecordTrial(output, trial), FailsWith("TRIAL_MISSING", HasSubstr("one format")));
}

TEST_F(JobPlannerTest, ATrialThatCannotBeThisJobsIsRefused) {
  v1::PlanTrial trial;
  for (int u = 0; u < 4; ++u) trial.add_formats("int5-g128");
  EXPECT_THAT(NextPlanStep(spec_, manifest_, scores_, {trial}),
              FailsWith("TRIAL_INVALID", HasSubstr("int5-g128")));
  trial.clear_formats();
  for (int u = 0; u < 5; ++u) trial.add_formats("int2-g128");
  EXPECT_THAT(NextPlanStep(spec_, manifest_, scores_, {trial}),
              FailsWith("TRIAL_INVALID", HasSubstr("unit 4")));
  trial.clear_formats();
  for (int u = 0; u < 4; ++u) trial.add_formats("int2-g128");
  trial.set_kl(std::nan(""));
  EXPECT_THAT(NextPlanStep(spec_, manifest_, scores_, {trial}),
              FailsWith("TRIAL_INVALID", HasSubstr("nan")));
}

// Of a model that is only layers: embedding and head are no units here.
TEST_F(JobPlannerTest, AGgufJobIsPlannedByItsOwnUnitsAndItsFilesBytes) {
  v1::Inventory& inventory = *manifest_.mutable_inventory();
  v1::InventoryTensor& table = *inventory.add_dense();
  table.set_name("model.embed_tokens.weight");
  table.set_dtype("BF16");
  table.add_shape(512);
  table.add_shape(128);
  table.set_part(v1::PART_EMBEDDING);
  spec_.set_profile("llama.cpp");
  spec_.mutable_budget()->set_file_bytes(100'000);
  EXPECT_THAT(ProductsOf(spec_, manifest_), FailsWith("MODEL_INVALID", HasSubstr("register")));
  inventory.set_gguf_other_bytes(10'000);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto products, ProductsOf(spec_, manifest_));
  ASSERT_EQ(products.size(), 5u);
  const std::vector<v1::UnitFormats>& embedding = products.at(RecordedLayer(Place::Embedding()));
  ASSERT_EQ(embedding.size(), 1u);
  EXPECT_EQ(embedding[0].unit(), "embed_tokens");
  EXPECT_EQ(embedding[0].formats(0), "gguf-iq4_nl");  // 128 inputs
  LWQ_ASSERT_OK_AND_ASSIGN(const Feasibility feasible, CheckFeasibility(spec_, manifest_, memory_));
  EXPECT_EQ(feasible.smallest_bytes, 10'000 + (4 * 128 + 512) * 128 / 32 * 18);
  EXPECT_EQ(feasible.source_bytes, 10'000 + (4 * 128 + 512) * 128 * 2);
  spec_.set_allocator("uniform");
  LWQ_ASSERT_OK_AND_ASSIGN(const PlanStep step, NextPlanStep(spec_, manifest_, {}, {}));
  EXPECT_EQ(step.plan.artifact_format(), "gguf");
  EXPECT_EQ(step.plan.weight_file_bytes(), 10'000 + (4 * 128 + 512) * 128 / 32 * 20);  // Q4_1
}

}  // namespace
}  // namespace lwq
