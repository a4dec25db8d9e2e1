// Declared options survive the way through the records.
#include "records/option_records.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

constexpr OptionDef kOptions[] = {
    {.name = "flag", .type = OptionDef::Type::kFlag, .default_value = "true", .help = "a"},
    {.name = "integer",
     .type = OptionDef::Type::kInteger,
     .default_value = "3",
     .minimum = -2,
     .maximum = 5,
     .help = "b"},
    {.name = "number",
     .type = OptionDef::Type::kNumber,
     .default_value = "0.5",
     .minimum = 0.25,
     .maximum = 1},
    {.name = "choice",
     .type = OptionDef::Type::kChoice,
     .default_value = "one",
     .choices = "one,two"},
};

TEST(OptionRecordsTest, RoundTrip) {
  v1::Capability capability;
  OptionsToProto(kOptions, capability.mutable_options());
  v1::Capability read;
  ASSERT_TRUE(read.ParseFromString(capability.SerializeAsString()));
  const std::vector<OptionDef> options = OptionsOf(read.options());
  ASSERT_EQ(options.size(), 4u);
  for (size_t i = 0; i < options.size(); ++i) {
    EXPECT_EQ(options[i].name, kOptions[i].name);
    EXPECT_EQ(options[i].type, kOptions[i].type) << i;
    EXPECT_EQ(options[i].default_value, kOptions[i].default_value);
    EXPECT_EQ(options[i].minimum, kOptions[i].minimum);
    EXPECT_EQ(options[i].maximum, kOptions[i].maximum);
    EXPECT_EQ(options[i].choices, kOptions[i].choices);
    EXPECT_EQ(options[i].help, kOptions[i].help);
  }
}

TEST(OptionRecordsTest, Texts) {
  v1::Recipe recipe;
  (*recipe.mutable_options())["gone"] = "1";
  TextsToProto({{"damping", "0.02"}, {"act-order", "false"}}, recipe.mutable_options());
  EXPECT_EQ(TextsOf(recipe.options()),
            (OptionTexts{{"act-order", "false"}, {"damping", "0.02"}}));
}

TEST(OptionRecordsTest, AMethodThatRoundsToNearestRefinesNothing) {
  const auto refines = [](const OptionTexts& texts, bool otherwise) {
    OptionMap options;
    TextsToProto(texts, &options);
    return Refines(options, otherwise);
  };
  EXPECT_FALSE(refines({{"rounding", "nearest"}}, true));
  EXPECT_FALSE(refines({{"rounding", "nearest"}, {"refinement", "true"}}, true));
  EXPECT_FALSE(refines({{"rounding", "gptq"}, {"refinement", "false"}}, true));
  EXPECT_TRUE(refines({{"refinement", "true"}}, false));
  EXPECT_TRUE(refines({}, true));
  EXPECT_FALSE(refines({}, false));
}

}  // namespace
}  // namespace lwq
