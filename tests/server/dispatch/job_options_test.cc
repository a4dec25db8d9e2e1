// What a method and a scorer are set to: their own options only, whichever way they were spelled.
#include "server/dispatch/job_options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "records/option_records.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

constexpr OptionDef kAll[] = {
    {.name = "damping",
     .type = OptionDef::Type::kNumber,
     .default_value = "0.01",
     .minimum = 0,
     .maximum = 1},
    {.name = "refinement", .type = OptionDef::Type::kFlag, .default_value = "true"},
};
constexpr OptionDef kSeed[] = {
    {.name = "seed", .type = OptionDef::Type::kInteger, .default_value = "0", .maximum = 1e9},
};

v1::Capability With(const char* name, absl::Span<const OptionDef> options) {
  v1::Capability capability;
  capability.set_name(name);
  OptionsToProto(options, capability.mutable_options());
  return capability;
}

OptionTexts Filled(v1::QuantizeSpec spec, const v1::Capability& method, bool strict = true) {
  EXPECT_OK(FillOptions(method, With("random", kSeed), strict, spec));
  OptionTexts all = TextsOf(spec.method_options());
  all.merge(TextsOf(spec.scorer_options()));
  return all;
}

TEST(FillOptionsTest, FillsEveryDeclaredOptionAndNoOther) {
  v1::QuantizeSpec spec;
  EXPECT_EQ(Filled(spec, With("full", kAll)),
            (OptionTexts{{"damping", "0.01"}, {"refinement", "true"}, {"seed", "0"}}));
  EXPECT_EQ(Filled(spec, With("plain", {})), (OptionTexts{{"seed", "0"}}));
}

TEST(FillOptionsTest, OlderFieldsAreOtherSpellings) {
  v1::QuantizeSpec fields, options;
  fields.set_damping(0.0123456789);
  fields.set_no_refinement(true);
  fields.set_seed(7);
  (*options.mutable_method_options())["damping"] = "1.23456789e-2";
  (*options.mutable_method_options())["refinement"] = "no";
  (*options.mutable_scorer_options())["seed"] = "7";
  const OptionTexts expected = {{"damping", "0.0123456789"}, {"refinement", "false"}, {"seed", "7"}};
  EXPECT_EQ(Filled(fields, With("full", kAll)), expected);
  EXPECT_EQ(Filled(options, With("full", kAll)), expected);
  // What was filled once stays as it is.
  EXPECT_OK(FillOptions(With("full", kAll), With("random", kSeed), true, fields));
  EXPECT_EQ(Filled(fields, With("full", kAll)), expected);
}

TEST(FillOptionsTest, AFieldOfAnotherMethodIsRefusedUnlessItWasAcceptedBefore) {
  v1::QuantizeSpec spec;
  spec.set_damping(0.01);  // which earlier servers set whatever the method
  EXPECT_THAT(FillOptions(With("plain", {}), With("random", kSeed), true, spec),
              FailsWith("FIELD_INVALID", HasSubstr("method plain has no option \"damping\"")));
  EXPECT_EQ(Filled(spec, With("plain", {}), /*strict=*/false), (OptionTexts{{"seed", "0"}}));
  (*spec.mutable_method_options())["damping"] = "0.5";
  EXPECT_THAT(FillOptions(With("full", kAll), With("random", kSeed), false, spec),
              FailsWith("FIELD_INVALID", HasSubstr("contradict")));
}

// A forecast of awq, which rounds to nearest unless it is told otherwise, has no refinement in it.
TEST(RefinesTest, ByTheOptionTheFieldAndTheRounding) {
  v1::QuantizeSpec spec;
  EXPECT_TRUE(Refines(spec));
  (*spec.mutable_method_options())["rounding"] = "nearest";
  EXPECT_FALSE(Refines(spec));
  (*spec.mutable_method_options())["rounding"] = "gptq";
  EXPECT_TRUE(Refines(spec));
  (*spec.mutable_method_options())["refinement"] = "false";
  EXPECT_FALSE(Refines(spec));
  spec.clear_method_options();
  spec.set_no_refinement(true);
  EXPECT_FALSE(Refines(spec));
}

}  // namespace
}  // namespace lwq
