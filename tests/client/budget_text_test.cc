#include "client/budget_text.h"

#include "absl/strings/ascii.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

TEST(BudgetTextTest, BitsPerWeight) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget budget, ParseBudget("3.25bpw"));
  EXPECT_EQ(budget.kind_case(), v1::Budget::kBitsPerWeight);
  EXPECT_EQ(budget.bits_per_weight(), 3.25);
}

TEST(BudgetTextTest, BytesWithAndWithoutUnit) {
  struct Case {
    const char* text;
    int64_t bytes;
  };
  for (const Case& c : {Case{"5200000", 5200000}, Case{"900MiB", 943718400}, Case{"6MB", 6000000},
                        Case{"1.5GiB", 1610612736}, Case{"1gb", 1000000000}, Case{"12B", 12}}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget budget, ParseBudget(c.text));
    EXPECT_EQ(budget.file_bytes(), c.bytes) << c.text;
  }
}

TEST(BudgetTextTest, DeviceMemoryAtContextAndBatch) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget budget, ParseBudget("20GB@8192x4"));
  EXPECT_EQ(budget.device().bytes(), 20'000'000'000);
  EXPECT_EQ(budget.device().context_length(), 8192);
  EXPECT_EQ(budget.device().batch_size(), 4);
}

TEST(BudgetTextTest, RecipesOfLlamaCpp) {
  for (const char* text : {"Q4_K_M", "q4_k_m", "Q6_K", "IQ3_S", "IQ4_XS", "Q8_0"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget budget, ParseBudget(text));
    EXPECT_EQ(budget.recipe(), absl::AsciiStrToUpper(text));
  }
  EXPECT_EQ(FormatBudget(*ParseBudget("Q4_K_M")), "llama.cpp's Q4_K_M");
  for (const char* text : {"Q", "Q4", "Q4K", "QK_4", "Q4_K_M_XXXXX", "Q4_K M", "IIQ4_K"}) {
    EXPECT_THAT(ParseBudget(text), FailsWith("BUDGET_INVALID", HasSubstr("budget"))) << text;
  }
}

TEST(BudgetTextTest, ShareOfTheSourceAndPresets) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget half, ParseBudget("50%"));
  EXPECT_EQ(half.kind_case(), v1::Budget::kSourcePercent);
  EXPECT_EQ(half.source_percent(), 50);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Budget preset, ParseBudget("4bit"));
  EXPECT_EQ(preset.bits_per_weight(), 4.25);
}

TEST(BudgetTextTest, RefusesWhatThePlannerDoes) {
  EXPECT_THAT(ParseBudget("5 parsecs"), FailsWith("BUDGET_INVALID", HasSubstr("parsecs")));
}

TEST(BudgetTextTest, Formats) {
  EXPECT_EQ(FormatBudget(*ParseBudget("3.25bpw")), "3.25 bits per weight");
  EXPECT_EQ(FormatBudget(*ParseBudget("5200000")), "5,200,000 bytes");
  EXPECT_EQ(FormatBudget(*ParseBudget("50%")), "50 % of the source");
  EXPECT_EQ(FormatBudget(v1::Budget()), "none");
}

}  // namespace
}  // namespace lwq::client
