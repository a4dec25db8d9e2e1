#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {
namespace {

TEST(UniformTest, TakesTheWidestFormatThatFitsToTheByte) {
  const ModelInventory model = testing::LlamaInventory({});
  AllocationProblem problem;
  problem.model = &model;
  const std::vector<int> bits = {2, 3, 4, 8, 16};
  problem.menu = testing::MenuFor(model, bits);
  for (size_t f = 0; f < bits.size(); ++f) {
    problem.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
    const Plan all(model.units.size(), testing::Width(bits[f]));
    problem.budget.bytes = MeasurePlan(problem, all);
    LWQ_ASSERT_OK_AND_ASSIGN(Allocation exact, Allocate("uniform", problem));
    EXPECT_EQ(exact.plan, all);
    EXPECT_EQ(exact.plan_bytes, problem.budget.bytes);
    EXPECT_EQ(exact.weight_file_bytes, problem.budget.bytes);
    if (f == 0) continue;
    --problem.budget.bytes;
    LWQ_ASSERT_OK_AND_ASSIGN(Allocation below, Allocate("uniform", problem));
    EXPECT_EQ(below.plan[0], testing::Width(bits[f - 1]));
  }
}

}  // namespace
}  // namespace lwq
