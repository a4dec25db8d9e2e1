// Options: one canonical text a value, and no value that was not declared.
#include "base/option.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;
using ::lwq::testing::FailsWith;

constexpr OptionDef kOptions[] = {
    {.name = "act-order", .type = OptionDef::Type::kFlag, .default_value = "true"},
    {.name = "bits",
     .type = OptionDef::Type::kInteger,
     .default_value = "4",
     .minimum = 2,
     .maximum = 8},
    {.name = "damping",
     .type = OptionDef::Type::kNumber,
     .default_value = "0.01",
     .minimum = 0,
     .maximum = 1},
    {.name = "rounding",
     .type = OptionDef::Type::kChoice,
     .default_value = "nearest",
     .choices = "nearest,gptq"},
};

TEST(OptionTest, WhatIsNotGivenHasItsDefault) {
  const auto values = OptionValues::Make("method m", kOptions, {{"damping", "0.5"}});
  ASSERT_OK(values.status());
  EXPECT_TRUE(values->Flag("act-order"));
  EXPECT_EQ(values->Integer("bits"), 4);
  EXPECT_EQ(values->Number("damping"), 0.5);
  EXPECT_EQ(values->Choice("rounding"), "nearest");
  EXPECT_EQ(OptionValues(kOptions).texts().size(), 4u);
}

// A key holds the text, so the same value must not have two.
TEST(OptionTest, AValueHasOneText) {
  for (const auto& [name, spellings, canonical] :
       std::vector<std::tuple<std::string, std::vector<std::string>, std::string>>{
           {"act-order", {"false", "0", "no", "False"}, "false"},
           {"bits", {"3", "03", " 3"}, "3"},
           {"damping", {"0.01", "1e-2", ".01", "0.0100"}, "0.01"},
           {"damping", {"0", "-0", "0.0"}, "0"},
           {"rounding", {"gptq"}, "gptq"}}) {
    for (const std::string& text : spellings) {
      const auto values = OptionValues::Make("method m", kOptions, {{name, text}});
      ASSERT_OK(values.status());
      EXPECT_EQ(values->texts().at(name), canonical) << name << " = " << text;
    }
  }
}

TEST(OptionTest, RefusesWhatIsNotDeclaredAndWhatIsOutOfRange) {
  EXPECT_THAT(OptionValues::Make("method rtn", kOptions, {{"magic", "1"}}),
              FailsWith("FIELD_INVALID", HasSubstr("method rtn has no option \"magic\"")));
  EXPECT_THAT(OptionValues::Make("method rtn", {}, {{"magic", "1"}}),
              FailsWith("FIELD_INVALID", HasSubstr("it has none")));
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{
           {"act-order", "maybe"}, {"act-order", ""}, {"bits", "9"}, {"bits", "3.5"},
           {"bits", "1"}, {"damping", "nan"}, {"damping", "-0.1"}, {"damping", "1e400"},
           {"rounding", "up"}, {"rounding", ""}, {"rounding", "nearest,gptq"}}) {
    EXPECT_THAT(OptionValues::Make("method m", kOptions, {{name, text}}),
                FailsWith("FIELD_INVALID", HasSubstr(name)))
        << name << " = " << text;
  }
}

}  // namespace
}  // namespace lwq
