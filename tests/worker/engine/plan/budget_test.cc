#include "worker/engine/plan/budget.h"

#include <limits>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(BudgetTest, ReadsBytesInEveryUnit) {
  const struct {
    const char* text;
    int64_t bytes;
  } cases[] = {{"5200000", 5200000},
               {"17B", 17},
               {"3kB", 3000},
               {"3KB", 3000},
               {"5 MB", 5000000},
               {"5gib", int64_t{5} << 30},
               {"3KiB", 3072},
               {"900MiB", 943718400},
               {"900MB", 900000000},
               {"4GiB", int64_t{4} << 30},
               {"4GB", 4000000000},
               {"1.5GiB", 1610612736},
               {"2TiB", int64_t{2} << 40},
               {"2TB", 2000000000000},
               // 0.1 KiB is 102.4 bytes; a budget is never rounded up.
               {"0.1KiB", 102},
               {"9223372036854775806", std::numeric_limits<int64_t>::max() - 1}};
  for (const auto& c : cases) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Budget budget, ParseBudget(c.text));
    EXPECT_EQ(budget.kind, Budget::Kind::kFileBytes) << c.text;
    EXPECT_EQ(budget.bytes, c.bytes) << c.text;
  }
}

TEST(BudgetTest, ReadsBitsPerWeightAndDeviceBytes) {
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget bits, ParseBudget("3.25bpw"));
  EXPECT_EQ(bits.kind, Budget::Kind::kBitsPerWeight);
  EXPECT_EQ(bits.bits_per_weight, 3.25);
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget device, ParseBudget("20GB@8192x4"));
  EXPECT_EQ(device.kind, Budget::Kind::kDeviceBytes);
  EXPECT_EQ(device.bytes, 20000000000);
  EXPECT_EQ(device.context_length, 8192);
  EXPECT_EQ(device.batch_size, 4);
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget one, ParseBudget("20GB@8192"));
  EXPECT_EQ(one.batch_size, 1);
}

TEST(BudgetTest, RefusesWhatItCannotReadAndNamesTheForms) {
  for (const char* text : {"",
                           "abc",
                           "nan",
                           "NaN",
                           "nanbpw",
                           "infbpw",
                           "inf",
                           "-5",
                           "-5MB",
                           "-3bpw",
                           "+5",
                           "0",
                           "0bpw",
                           "0MiB",
                           "0.00000001KB",
                           " 5MB",
                           "5  MB",
                           "5\tMB",
                           "5MB\n",
                           "5M",
                           "3,25bpw",
                           "3.25 BPW",
                           "%",
                           "0%",
                           "101%",
                           "-5%",
                           "50%@8192",
                           "5bit",
                           "5MB ",
                           "5PB",
                           "5EB",
                           "1e9",
                           "0x10",
                           "5.5",
                           "5.5B",
                           "5.MB",
                           ".5MB",
                           "1.2.3MB",
                           "MB",
                           "bpw",
                           "65bpw",
                           "1e-3bpw",
                           "9223372036854775807",
                           "9223372036854775808",
                           "99999999999TiB",
                           "1234567890123456789012345bpw",
                           "20GB@",
                           "20GB@0",
                           "20GB@-1",
                           "20GB@x4",
                           "20GB@8192x",
                           "20GB@8192x0",
                           "20GB@8192x4x4",
                           "20GB@8192.5",
                           "@8192",
                           "3.25bpw@8192",
                           "20GB@99999999999999999999"}) {
    EXPECT_THAT(ParseBudget(text),
                FailsWith("BUDGET_INVALID", AllOf(HasSubstr("900MiB"), HasSubstr("3.25bpw"),
                                                  HasSubstr("20GB@8192x4"))))
        << "\"" << text << "\"";
  }
}

TEST(BudgetTest, WritesWhatItReads) {
  for (const char* text : {"3.25bpw", "2.1bpw", "900MiB", "4GiB", "5200000", "20GB@8192x4", "7MB",
                           "9223372036854775806", "0.0001bpw", "50%", "33.3%"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Budget budget, ParseBudget(text));
    EXPECT_EQ(FormatBudget(budget), text);
  }
  // Other spellings come back in the canonical one, with the same meaning.
  LWQ_ASSERT_OK_AND_ASSIGN(const Budget budget, ParseBudget("1.5GiB"));
  EXPECT_EQ(FormatBudget(budget), "1536MiB");
}

TEST(BudgetTest, EachPresetIsABudget) {
  for (const BudgetPreset& preset : BudgetPresets()) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Budget budget, ParseBudget(preset.name));
    EXPECT_EQ(FormatBudget(budget), preset.budget);
  }
}

TEST(BudgetTest, SaysWhatIsWrongWithANumber) {
  EXPECT_THAT(ParseBudget("3,25bpw"), FailsWith("BUDGET_INVALID", HasSubstr("write 3.25")));
  EXPECT_THAT(ParseBudget("bpw"), FailsWith("BUDGET_INVALID", HasSubstr("there is no number")));
}

TEST(BudgetTest, AShareBecomesBytesOfTheSourceRoundedDown) {
  const auto bytes = [](const char* text, int64_t source) {
    const Budget budget = ResolveShare(*ParseBudget(text), source);
    EXPECT_EQ(budget.kind, Budget::Kind::kFileBytes);
    return budget.bytes;
  };
  EXPECT_EQ(bytes("50%", 1001), 500);
  EXPECT_EQ(bytes("28.4%", 1000), 284);  // the double nearest .284 times 1000 is below 284
  EXPECT_EQ(bytes("100%", 5), 5);
  EXPECT_EQ(ResolveShare(*ParseBudget("7MB"), 1000).bytes, 7000000);
}

TEST(BudgetTest, TurnsBitsPerWeightIntoBytesByTheDecimalWritten) {
  int64_t num_weights = 80;
  const auto bytes = [&](const char* text) { return BudgetBytes(*ParseBudget(text), num_weights); };
  EXPECT_EQ(bytes("2.3bpw"), 23);  // the double nearest 2.3 is below it
  EXPECT_EQ(bytes("3.1bpw"), 31);  // and the one nearest 3.1 above
  EXPECT_EQ(bytes("2.39bpw"), 23);
  EXPECT_EQ(bytes("2.4bpw"), 24);
  num_weights = int64_t{1} << 56;
  EXPECT_EQ(bytes("3.1bpw"), 27922317689697075);  // floor(3.1 * 2^56 / 8), by hand
  EXPECT_EQ(bytes("64bpw"), int64_t{1} << 59);
}

TEST(BudgetTest, CountsTheKeyValueCacheAndSaturates) {
  const ModelInventory model = testing::LlamaInventory({});
  // 2 * 12 layers * 2 heads * 64 * 2 bytes * 8192 * 4.
  EXPECT_EQ(KvCacheBytes(model, 8192, 4), int64_t{2} * 12 * 2 * 64 * 2 * 8192 * 4);
  EXPECT_EQ(KvCacheBytes(model, int64_t{1} << 40, int64_t{1} << 40),
            std::numeric_limits<int64_t>::max());
}

TEST(BudgetTest, MeasuresPlansInItsOwnTerms) {
  const ModelInventory model = testing::LlamaInventory({});
  const Plan plan(model.units.size(), testing::Width(4));
  AllocationProblem problem;
  problem.model = &model;
  problem.menu = testing::MenuFor(model, {4});
  int64_t payload = 0, dense = 0;
  for (const AllocationUnit& unit : model.units) {
    for (const LinearShape& l : unit.linears) {
      payload += l.num_weights() / 2 + l.num_weights() / 128 * 2 + 16;  // codes, scales, shape
    }
  }
  for (const TensorSpec& tensor : model.dense) dense += tensor.size_bytes();
  problem.budget = {.kind = Budget::Kind::kBitsPerWeight, .bits_per_weight = 5};
  EXPECT_EQ(MeasurePlan(problem, plan), payload);
  problem.budget = {.kind = Budget::Kind::kDeviceBytes, .bytes = 1, .context_length = 100};
  EXPECT_EQ(MeasurePlan(problem, plan), payload + dense + KvCacheBytes(model, 100, 1));
  problem.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
  EXPECT_EQ(MeasurePlan(problem, plan), LayOutArtifact(model, plan, 0).weight_bytes);
  EXPECT_GT(MeasurePlan(problem, plan), payload + dense);
}

}  // namespace
}  // namespace lwq
