#include "client/budget_text.h"

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

TEST(BudgetTextTest, RefusesEverythingElse) {
  for (const char* text : {"",
                           "bpw",
                           "0bpw",
                           "-3bpw",
                           "33bpw",
                           "3,25bpw",
                           "1e3",
                           " 5",
                           "5 MB",
                           "5M",
                           "0",
                           "-1",
                           "+5",
                           "0.4B",
                           "nan",
                           "inf",
                           ".5MB",
                           "5.MB",
                           "1.2.3MB",
                           "9999999TiB",
                           "99999999999999999999",
                           "20GB@",
                           "20GB@8192",
                           "20GB@8192x",
                           "20GB@x4",
                           "20GB@0x4",
                           "20GB@8192x-4",
                           "20GB@8192x4x1",
                           "@8192x4",
                           "3.25bpw@8192x4",
                           "5MB\n"}) {
    EXPECT_THAT(ParseBudget(text), FailsWith("BUDGET_INVALID", HasSubstr("expected for example")))
        << text;
  }
}

TEST(BudgetTextTest, Formats) {
  EXPECT_EQ(FormatBudget(*ParseBudget("3.25bpw")), "3.25 bits per weight");
  EXPECT_EQ(FormatBudget(*ParseBudget("5200000")), "5,200,000 bytes");
  EXPECT_EQ(FormatBudget(v1::Budget()), "none");
}

}  // namespace
}  // namespace lwq::client
