#include "worker/engine/plan/profile.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Where rows are whole blocks, the smallest plan is below the smallest preset.
TEST(ProfileTest, LlamaCppHasWhatTwoBitsTake) {
  const ModelInventory model =
      PlannedAs(ArtifactFormatDefs::gguf, ::lwq::testing::LlamaInventory({}));
  AllocationProblem problem;
  problem.model = &model;
  LWQ_ASSERT_OK_AND_ASSIGN(problem.menu, BuildMenu(model, **FindProfile("llama.cpp"), {}));
  problem.budget = *ParseBudget("2bit");
  EXPECT_LE(MeasurePlan(problem, SmallestPlan(problem)), AllowedBytes(problem));
}

TEST(ProfileTest, KnowsPortableAndLowBit) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* portable, FindProfile("portable"));
  EXPECT_EQ(portable->grid_bits, (std::vector<int>{4, 8}));
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* low, FindProfile("vllm-lowbit"));
  EXPECT_EQ(low->grid_bits, (std::vector<int>{2, 3, 4, 8}));
  EXPECT_EQ(low->group_sizes, (std::vector<int64_t>{32, 64, 128, 0}));
  EXPECT_EQ(low->artifact_format->name, "compressed-tensors");
  LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* llama_cpp, FindProfile("llama.cpp"));
  EXPECT_EQ(llama_cpp->artifact_format->name, "gguf");
  for (const char* name : {"w8a8", "fp8"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* eight, FindProfile(name));
    EXPECT_EQ(eight->artifact_format->name, "compressed-tensors");
    LWQ_ASSERT_OK_AND_ASSIGN(const WeightFormat* format, FindWeightFormat(eight->rungs[0][0]));
    EXPECT_NE(format->activation_rule(), ActivationRule::kNone);
  }
  for (const char* name : {"gptq", "gptqmodel"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const ProfileDef* gptq, FindProfile(name));
    EXPECT_EQ(gptq->artifact_format->name, "gptq");
    EXPECT_TRUE(gptq->asymmetric_bits.empty()) << "v1 files with zero points are refused";
  }
  EXPECT_THAT(FindProfile("gguf2"),
              FailsWith("PROFILE_UNKNOWN", AllOf(HasSubstr("portable"), HasSubstr("vllm-lowbit"))));
}

}  // namespace
}  // namespace lwq
