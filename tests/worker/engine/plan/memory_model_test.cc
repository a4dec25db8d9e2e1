#include "worker/engine/plan/memory_model.h"

#include <algorithm>
#include <limits>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kKinds[] = {"calibrate", "score",  "quantize", "trial",
                                  "evaluate",  "verify", "preflight"};

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

// Of the four usual widths; a job of gptq.
class MemoryModelTest : public ::testing::Test {
 protected:
  MemoryModelTest() { Use({.layers = 2, .hidden = 2048, .intermediate = 5632, .vocab = 32000}); }

  void Use(const testing::LlamaShape& shape) { Use(testing::LlamaInventory(shape)); }
  void Use(ModelInventory model) {
    model_ = std::move(model);
    menu_ = testing::MenuFor(model_, {2, 3, 4, 8});
    question_.menu = &menu_;
    question_.runs_source = question_.moments = true;
    question_.factors = question_.refinement = true;
  }
  MemoryForecast Forecast(const WorkLimits& limits = {}) const {
    return ForecastWorkerMemory(model_, question_, limits);
  }

  ModelInventory model_;
  Menu menu_;
  MemoryQuestion question_;
};

TEST_F(MemoryModelTest, DoesNotGrowWithDepthOrVocabulary) {
  const int64_t bytes = Forecast().total_bytes;
  Use({.layers = 40, .hidden = 2048, .intermediate = 5632, .vocab = 256000});
  EXPECT_EQ(Forecast().total_bytes, bytes);
}

// Weights, statistics and results of a layer's experts come and go.
TEST_F(MemoryModelTest, DoesNotGrowWithTheNumberOfExperts) {
  Use(WithExperts(8));
  const MemoryForecast few = Forecast();
  Use(WithExperts(128));
  const MemoryForecast many = Forecast();
  EXPECT_EQ(few.calibrate_bytes, many.calibrate_bytes);
  EXPECT_EQ(few.score_bytes, many.score_bytes);
  EXPECT_EQ(few.trial_bytes, many.trial_bytes);
  EXPECT_EQ(few.quantize_bytes, many.quantize_bytes);
  EXPECT_GE(few.layer_bytes, 4 * 8 * int64_t{768} * 2048);  // four experts
}

// Qwen2-57B-A14B has a shared expert that is wider than its intermediate_size says.
TEST_F(MemoryModelTest, ASharedExpertWiderThanTheConfigSaysIsCounted) {
  const auto with_shared = [](int64_t width) {
    ModelInventory model = WithExperts(8);
    const std::string module = "model.layers.0.mlp.shared_expert.down_proj";
    model.units.push_back(
        {"layers.0.mlp.shared_expert.down_proj",
         Place::Layer(0),
         {{module, 2048, width, "mlp.shared_expert.down_proj", LinearRole::kDown, "mlp_hidden"}},
         "mlp.shared_expert.down_proj"});
    return model;
  };
  Use(with_shared(5632));
  const int64_t narrow = Forecast().calibrate_bytes;
  Use(with_shared(6144));
  EXPECT_GE(Forecast().calibrate_bytes - narrow, 4 * (6144 * 6144 - 5632 * 5632));
}

TEST_F(MemoryModelTest, CountsWhatATaskCannotDoWithout) {
  const int64_t layer = model_.num_quantizable_weights() / 2;
  const int64_t widest = int64_t{2048} * 5632, square = int64_t{5632} * 5632;
  const MemoryForecast f = Forecast();
  EXPECT_GE(f.layer_bytes, 4 * (layer + widest));
  EXPECT_GE(f.statistics_bytes, 3 * 4 * square);  // second moments, factor, and H once more
  // Residual, norm, and the down projection's inputs.
  EXPECT_GE(f.activation_bytes, int64_t{2048} * 4 * (2 * 2048 + 5632));
  EXPECT_GE(f.calibrate_bytes, f.fixed_bytes + f.layer_bytes + f.activation_bytes + 4 * square);
  EXPECT_GE(f.score_bytes, f.trial_bytes + 4 * 2 * widest);  // gate and up once more
  EXPECT_GE(f.quantize_bytes, f.fixed_bytes + f.statistics_bytes);
  EXPECT_GE(f.preflight_bytes, f.fixed_bytes + f.statistics_bytes);
  for (const char* kind : kKinds) {
    EXPECT_GT(f.Of(kind), f.fixed_bytes) << kind;
    EXPECT_LE(f.Of(kind), f.total_bytes) << kind;
  }
  EXPECT_EQ(f.Of("assemble"), f.idle_bytes);
  EXPECT_LT(f.idle_bytes, f.fixed_bytes);
}

TEST_F(MemoryModelTest, WhatIsNotDoneIsNotCounted) {
  const MemoryForecast all = Forecast();
  question_.refinement = false;
  const MemoryForecast unrefined = Forecast();
  EXPECT_LT(unrefined.quantize_bytes, all.quantize_bytes);
  EXPECT_EQ(unrefined.calibrate_bytes, all.calibrate_bytes);
  question_.factors = false;
  EXPECT_LT(Forecast().quantize_bytes, unrefined.quantize_bytes);
  EXPECT_EQ(Forecast().calibrate_bytes, unrefined.calibrate_bytes);
  question_.moments = false;
  EXPECT_LT(Forecast().calibrate_bytes, unrefined.calibrate_bytes);
  question_.runs_source = false;
  EXPECT_EQ(Forecast().calibrate_bytes, 0);
}

// GGUF's blocks are swept over with H kept; the columns in work are in the host too.
TEST_F(MemoryModelTest, SweepsOverBlocksHoldColumnsInTheHost) {
  MenuRequest request;
  request.formats = {"gguf-q4_k"};
  menu_ = BuildMenu(model_, **FindProfile("llama.cpp"), request).value();
  const int64_t swept = Forecast().quantize_bytes;
  question_.refinement = false;
  const int64_t square = int64_t{5632} * 5632, rows = 2048;
  EXPECT_GE(swept - Forecast().quantize_bytes, 4 * (square + rows * 2 * 256));
}

// Inputs that are rounded are a copy; prepared weights are F32 where the CPU has no BF16.
TEST_F(MemoryModelTest, BF16TakesNoLess) {
  const MemoryForecast f32 = Forecast();
  question_.bf16 = true;
  EXPECT_EQ(Forecast().layer_bytes, f32.layer_bytes);
  EXPECT_EQ(Forecast().activation_bytes - f32.activation_bytes, int64_t{2048} * 4 * 5632);
}

// An untied head is quantized in tiles, like any linear: what it takes more is what is stored of
// it.
TEST_F(MemoryModelTest, AHeadThatIsQuantizedCountsByItsTiles) {
  const auto bytes = [&](int64_t vocab) {
    Use({.layers = 2, .hidden = 2048, .intermediate = 2048, .vocab = vocab, .tied = false});
    question_.factors = question_.refinement = false;
    return Forecast().quantize_bytes;
  };
  const int64_t more = (int64_t{256000} - 128000) * 2048;
  const int64_t stored = bytes(256000) - bytes(128000);
  EXPECT_GE(stored, more / 8 * (2 + 3 + 4 + 8));
  EXPECT_LE(stored, more / 8 * (2 + 3 + 4 + 8) * 3 / 2);
}

TEST_F(MemoryModelTest, ALongWindowAddsItsKeysAndValues) {
  const int64_t before = Forecast().evaluate_bytes;
  question_.longest_window = 16384;
  const int64_t keys = int64_t{model_.num_kv_heads} * model_.head_dim;
  EXPECT_GE(Forecast().evaluate_bytes - before, int64_t{16384} * 2 * keys * 4);
  EXPECT_EQ(Forecast().trial_bytes, before);
}

// The rolling form counts four bytes for a token; where a byte is a token, all are in one window.
TEST(LongestWindowTest, HasRoomForATokenPerByte) {
  EXPECT_EQ(LongestWindow(16, 1000), 64);
  EXPECT_EQ(LongestWindow(250, 1000), 1000);
  EXPECT_EQ(LongestWindow(251, 1001), 1001);
  EXPECT_EQ(LongestWindow(-1, 1000), 1000);
  EXPECT_EQ(LongestWindow(std::numeric_limits<int64_t>::max(), 1000), 1000);
}

TEST_F(MemoryModelTest, ACeilingMakesTheWorkSmallerUntilItFits) {
  const MemoryForecast plain = Forecast();
  EXPECT_TRUE(ForecastUnderCeiling(model_, question_, 0).limits.empty());
  EXPECT_TRUE(ForecastUnderCeiling(model_, question_, plain.total_bytes).limits.empty());
  const int64_t ceiling = plain.total_bytes - 1;
  const MemoryForecast smaller = ForecastUnderCeiling(model_, question_, ceiling);
  EXPECT_LE(smaller.total_bytes, ceiling);
  EXPECT_FALSE(smaller.limits.empty());
}

// Jobs that differ in what they evaluate, or in what is on their menu, calibrate alike and share
// it.
TEST_F(MemoryModelTest, TheLimitsOfAKindDoNotDependOnWhatOthersNeed) {
  question_.longest_window = 4096;
  const int64_t ceiling = Forecast({.chunk_tokens = 512}).evaluate_bytes;
  const MemoryForecast with = ForecastUnderCeiling(model_, question_, ceiling);
  EXPECT_EQ(with.LimitsOf("evaluate").chunk_tokens, 512);
  EXPECT_EQ(with.evaluate_bytes, ceiling);
  question_.longest_window = 0;
  const MemoryForecast without = ForecastUnderCeiling(model_, question_, ceiling);
  EXPECT_GT(without.LimitsOf("evaluate").chunk_tokens, 512);
  for (const char* kind : {"calibrate", "score", "quantize", "trial"}) {
    EXPECT_EQ(with.LimitsOf(kind), without.LimitsOf(kind)) << kind;
    EXPECT_EQ(with.Of(kind), without.Of(kind)) << kind;
  }
  EXPECT_GT(with.LimitsOf("trial").chunk_tokens, 512);
}

TEST_F(MemoryModelTest, RefusesACeilingThatIsTooLowAndSaysWhichWouldDo) {
  const MemoryForecast least = ForecastUnderCeiling(model_, question_, 1);
  EXPECT_OK(CheckMemoryCeiling(least, 0));  // no ceiling
  EXPECT_OK(CheckMemoryCeiling(least, least.total_bytes));
  const absl::Status status = CheckMemoryCeiling(least, least.total_bytes - 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status, FailsWith("MEMORY_INFEASIBLE",
                                AllOf(HasSubstr(absl::StrCat(least.total_bytes)),
                                      HasSubstr(absl::StrCat(least.total_bytes - 1)))));
  EXPECT_LE(ForecastUnderCeiling(model_, question_, least.total_bytes).total_bytes,
            least.total_bytes);
}

}  // namespace
}  // namespace lwq
