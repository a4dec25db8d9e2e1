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
  problem.formats = testing::SymmetricFormats({2, 3, 4, 8, 16});
  for (size_t f = 0; f < problem.formats.size(); ++f) {
    problem.budget = {.kind = Budget::Kind::kFileBytes, .bytes = 1};
    const std::vector<UnitFormat> all(model.units.size(), problem.formats[f]);
    problem.budget.bytes = PlanBytes(problem.budget, model, all, 0);
    LWQ_ASSERT_OK_AND_ASSIGN(Allocation exact, Allocate("uniform", problem));
    EXPECT_EQ(exact.formats, all);
    EXPECT_EQ(exact.plan_bytes, problem.budget.bytes);
    EXPECT_EQ(exact.weight_file_bytes, problem.budget.bytes);
    if (f == 0) continue;
    --problem.budget.bytes;
    LWQ_ASSERT_OK_AND_ASSIGN(Allocation below, Allocate("uniform", problem));
    EXPECT_EQ(below.formats[0], problem.formats[f - 1]);
  }
}

}  // namespace
}  // namespace lwq
