#include "worker/engine/plan/memory_model.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMebibyte = int64_t{1} << 20;

// Of the four usual widths.
MemoryForecast Forecast(const ModelInventory& model, bool calibrated, bool bf16) {
  return ForecastWorkerMemory(model, testing::MenuFor(model, {2, 3, 4, 8}).AllFormats(), calibrated,
                              bf16);
}

TEST(MemoryModelTest, DoesNotGrowWithDepth) {
  testing::LlamaShape shape{.layers = 4, .hidden = 2048, .intermediate = 5632, .vocab = 32000};
  const auto shallow = Forecast(testing::LlamaInventory(shape), true, true);
  shape.layers = 40;
  const auto deep = Forecast(testing::LlamaInventory(shape), true, true);
  EXPECT_EQ(shallow.total_bytes, deep.total_bytes);
}

// A layer whose MLP is so many experts.
ModelInventory WithExperts(int num_experts) {
  ModelInventory model =
      testing::LlamaInventory({.layers = 1, .hidden = 2048, .intermediate = 768, .vocab = 32000});
  AllocationUnit experts{"layers.0.mlp.experts", Place::Layer(0), {}, "mlp.experts"};
  for (int e = 0; e < num_experts; ++e) {
    const std::string module = absl::StrCat("model.layers.0.mlp.experts.", e, ".");
    experts.linears.push_back({module + "up_proj", 768, 2048, "mlp.experts.up_proj"});
    experts.linears.push_back({module + "down_proj", 2048, 768, "mlp.experts.down_proj"});
  }
  model.units.back() = experts;
  return model;
}

// Weights, statistics and results of a layer's experts come and go.
TEST(MemoryModelTest, DoesNotGrowWithTheNumberOfExperts) {
  for (const bool calibrated : {false, true}) {
    const auto few = Forecast(WithExperts(8), calibrated, false);
    const auto many = Forecast(WithExperts(128), calibrated, false);
    EXPECT_EQ(few.layer_bytes, many.layer_bytes);
    EXPECT_EQ(few.hessian_bytes, many.hessian_bytes);
    EXPECT_EQ(few.total_bytes, many.total_bytes);
    EXPECT_GE(few.layer_bytes, 4 * 8 * int64_t{768} * 2048);  // four experts
  }
}

TEST(MemoryModelTest, CountsWhatATaskCannotDoWithout) {
  const testing::LlamaShape shape{
      .layers = 2, .hidden = 2048, .intermediate = 5632, .vocab = 32000};
  const ModelInventory model = testing::LlamaInventory(shape);
  const int64_t layer = model.num_quantizable_weights() / 2;
  const auto plain = Forecast(model, false, false);
  const auto bf16 = Forecast(model, false, true);
  const auto calibrated = Forecast(model, true, false);
  EXPECT_GE(plain.layer_bytes, 4 * layer + 4 * 2048 * 5632);
  EXPECT_EQ(plain.layer_bytes - bf16.layer_bytes, 2 * layer);
  EXPECT_GE(plain.head_bytes, 4 * 32000 * 2048);
  EXPECT_EQ(plain.hessian_bytes, 0);
  EXPECT_GE(calibrated.hessian_bytes, 2 * 4 * int64_t{5632} * 5632);  // Gram and factor of down
  // Residual, norm, queries and answer; the down projection's inputs as a dense copy.
  EXPECT_GE(plain.activation_bytes, int64_t{2048} * 4 * (4 * 2048 + 5632));
  EXPECT_GE(calibrated.activation_bytes - plain.activation_bytes, int64_t{2048} * 4 * 5632);
  EXPECT_GE(plain.fixed_bytes, 200 * kMebibyte);
}

// Each task's own needs are below the total, whichever of them is the largest.
TEST(MemoryModelTest, TheTotalHoldsEveryTask) {
  for (int64_t vocab : {256, 32000, 256000}) {
    for (int64_t intermediate : {512, 5632, 28672}) {
      const ModelInventory model = testing::LlamaInventory(
          {.layers = 2, .hidden = 2048, .intermediate = intermediate, .vocab = vocab});
      const auto f = Forecast(model, true, false);
      const int64_t widest = 2048 * std::max<int64_t>(2048, intermediate);
      EXPECT_GE(f.total_bytes,
                f.fixed_bytes + f.layer_bytes + f.hessian_bytes + f.activation_bytes);
      EXPECT_GE(f.total_bytes, f.fixed_bytes + f.layer_bytes + f.head_bytes + f.activation_bytes);
      // Four widths of the widest linear: a working copy and codes of each.
      EXPECT_GE(f.total_bytes, f.fixed_bytes + f.hessian_bytes + 4 * 5 * widest);
    }
  }
}

TEST(MemoryModelTest, TiedAndUntiedHeadsCountTheSame) {
  const auto tied = Forecast(testing::LlamaInventory({.tied = true}), true, false);
  const auto untied = Forecast(testing::LlamaInventory({.tied = false}), true, false);
  EXPECT_EQ(tied.head_bytes, untied.head_bytes);
}

TEST(MemoryModelTest, RefusesACeilingThatIsTooLow) {
  const auto forecast = Forecast(testing::LlamaInventory({}), true, false);
  EXPECT_OK(CheckMemoryCeiling(forecast, 0));  // no ceiling
  EXPECT_OK(CheckMemoryCeiling(forecast, forecast.total_bytes));
  const absl::Status status = CheckMemoryCeiling(forecast, forecast.total_bytes - 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status, FailsWith("MEMORY_INFEASIBLE",
                                AllOf(HasSubstr(absl::StrCat(forecast.total_bytes)),
                                      HasSubstr(absl::StrCat(forecast.total_bytes - 1)))));
}

}  // namespace
}  // namespace lwq
