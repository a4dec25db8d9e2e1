#include "gtest/gtest.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/plan/budget.h"

namespace lwq::testing {
namespace {

// Whatever is accepted is positive, and reads back from its own text as the same budget.
TEST(BudgetFuzzTest, MutantsAreRefusedOrRoundTrip) {
  const std::vector<std::string> seeds = {"3.25bpw",     "900MiB", "5200000", "1.5GB",
                                          "20GB@8192x4", "50%",    "4bit"};
  Mutator mutator(1, {"nan", "inf", "-", "e9", "0", "9999999999999999999", ".", "@", "x", "bpw",
                      "TiB", "KB", "%", "bit", " ", "0x1p3", "0.0000000000000000000001"});
  int accepted = 0;
  for (int i = 0; i < 200000; ++i) {
    const std::string text = mutator.Mutate(seeds[i % seeds.size()]);
    const absl::StatusOr<Budget> budget = ParseBudget(text);
    if (!budget.ok()) {
      ASSERT_EQ(ReasonOf(budget.status()), "BUDGET_INVALID") << text;
      continue;
    }
    ++accepted;
    ASSERT_TRUE(budget->bytes > 0 || budget->bits_per_weight > 0 || budget->percent > 0) << text;
    ASSERT_GE(budget->batch_size, 1) << text;
    const absl::StatusOr<Budget> again = ParseBudget(FormatBudget(*budget));
    ASSERT_TRUE(again.ok()) << text << " -> " << FormatBudget(*budget);
    ASSERT_EQ(again->kind, budget->kind) << text;
    ASSERT_EQ(again->bytes, budget->bytes) << text;
    ASSERT_EQ(again->bits_per_weight, budget->bits_per_weight) << text;
    ASSERT_EQ(again->percent, budget->percent) << text;
    ASSERT_EQ(again->context_length, budget->context_length) << text;
    ASSERT_EQ(again->batch_size, budget->batch_size) << text;
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace lwq::testing
