#include "client/plan_diff.h"

#include "gmock/gmock.h"

namespace lwq::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

DiffSide Side(const std::string& id, std::vector<std::pair<std::string, std::string>> units) {
  DiffSide side;
  side.artifact.set_name("artifacts/" + id);
  side.artifact.set_weight_bytes(1234567);
  side.job.set_name("jobs/" + id);
  side.job.mutable_spec()->mutable_quantize()->mutable_budget()->set_bits_per_weight(3.25);
  side.job.mutable_plan()->set_bits_per_weight(3.244);
  for (const auto& [unit, format] : units) {
    v1::UnitChoice* choice = side.job.mutable_plan()->add_units();
    choice->set_unit(unit);
    choice->set_format(format);
  }
  return side;
}

TEST(PlanDiffTest, ListsUnitsThatDiffer) {
  const DiffSide a = Side("a", {{"layers.0.down", "int4-g128"}, {"layers.1.down", "int3-g128"}});
  DiffSide b =
      Side("b", {{"layers.0.down", "int4-g128"}, {"layers.1.down", ""}, {"head", "dense"}});
  v1::EvaluationResult* measured = b.job.add_evaluations();
  measured->set_subject("artifact");
  measured->mutable_text()->mutable_kl()->set_mean(0.0123);
  const std::string text = DiffText(a, b);
  EXPECT_THAT(text, AllOf(HasSubstr("1,234,567 bytes"), HasSubstr("2 units differ"),
                          HasSubstr("layers.1.down  int3-g128  absent"),
                          HasSubstr("head           -          dense"), HasSubstr("0.01230"),
                          Not(HasSubstr("layers.0.down"))));
  EXPECT_THAT(DiffJson(a, b), AllOf(HasSubstr("\"kl\": 0.0123"), HasSubstr("\"kl\": null"),
                                    HasSubstr("\"a\": \"int3-g128\"")));
}

TEST(PlanDiffTest, SaysWhenNothingDiffers) {
  const DiffSide a = Side("a", {{"layers.0.down", "int4-g128"}});
  EXPECT_THAT(DiffText(a, Side("b", {{"layers.0.down", "int4-g128"}})),
              HasSubstr("every unit has the same format in both"));
}

}  // namespace
}  // namespace lwq::client
