#include "worker/engine/plan/work_model.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"

namespace lwq {
namespace {

using testing::Width;

// Small enough to count by hand: hidden 8, inner 16, two heads of 4 with one of keys and values,
// vocabulary 32. A layer has q 64, k and v 32 each, o 64, gate and up 128 each, down 128 weights.
constexpr double kLayerWeights = 64 + 32 + 32 + 64 + 128 + 128 + 128;
constexpr double kHeadWeights = 32 * 8;

const ModelInventory& Tiny() {
  static const auto& model = *new ModelInventory(testing::LlamaInventory(
      {.layers = 3, .hidden = 8, .intermediate = 16, .heads = 2, .kv_heads = 1, .vocab = 32}));
  return model;
}

std::vector<const AllocationUnit*> UnitsOf(const ModelInventory& model, int layer) {
  std::vector<const AllocationUnit*> units;
  for (const AllocationUnit& unit : model.units) {
    if (unit.place == Place::Layer(layer)) units.push_back(&unit);
  }
  return units;
}

const WeightFormat* Gguf(const char* id) {
  const auto format = FindWeightFormat(id);
  EXPECT_OK(format.status());
  return *format;
}

TEST(WorkModelTest, CountsAForwardPass) {
  const WorkModel model(&Tiny());
  const Work two = model.Layers(1, 3, {.tokens = 10, .sequence = 4});
  EXPECT_EQ(two.products, 2 * 10 * kLayerWeights);
  // Half of 4 positions, 8 wide, once for the scores and once for the values.
  EXPECT_EQ(two.attention, 2 * 10 * (4 / 2) * 2 * 8.0);
  EXPECT_EQ(two.loaded, 2 * kLayerWeights);
  const Work head = model.Head(10);
  EXPECT_EQ(head.products, 10 * kHeadWeights);
  EXPECT_EQ(head.probabilities, 10 * 32);
}

TEST(WorkModelTest, MomentsAreOfDistinctInputs) {
  const WorkModel model(&Tiny());
  // Of attention, of o, of the MLP: 8 inputs each; of down: 16. Symmetric: half of each square.
  EXPECT_EQ(model.SecondMoments(0, 1, 10).moments, 10 * (3 * 64 + 256) / 2.0);
  // The same where q, k and v, and gate and up, are units of their own.
  const ModelInventory unfused = testing::Unfused(Tiny());
  EXPECT_EQ(WorkModel(&unfused).SecondMoments(0, 1, 10).moments, 10 * (3 * 64 + 256) / 2.0);
  // Whatever modules are called.
  ModelInventory renamed = Tiny();
  for (AllocationUnit& unit : renamed.units) {
    int number = 0;
    for (LinearShape& linear : unit.linears) {
      linear.name = linear.module = absl::StrCat("w", ++number);
    }
  }
  EXPECT_EQ(WorkModel(&renamed).SecondMoments(0, 1, 10).moments, 10 * (3 * 64 + 256) / 2.0);
  // Of a model registered before inputs were recorded: each linear for itself.
  ModelInventory unknown = Tiny();
  for (AllocationUnit& unit : unknown.units) {
    for (LinearShape& linear : unit.linears) linear.input.clear();
  }
  EXPECT_EQ(WorkModel(&unknown).SecondMoments(0, 1, 10).moments, 10 * (6 * 64 + 256) / 2.0);
}

// Each expert has inputs of its own, of the tokens that go to it.
TEST(WorkModelTest, MomentsOfExpertsAreOfTheTokensThatTheySee) {
  ModelInventory mixture = Tiny();
  std::vector<LinearShape>& experts = mixture.units[3].linears;
  experts.resize(8, experts.front());
  for (size_t e = 0; e < experts.size(); ++e) experts[e].input = absl::StrCat("experts.", e);
  const WorkModel model(&mixture);
  // Of attention, of o, of the MLP as before; of down eight, each seeing two in eight tokens.
  EXPECT_EQ(model.SecondMoments(0, 1, 10).moments, 10 * (3 * 64 + 8 * 256 / 4) / 2.0);
  EXPECT_EQ(model.SecondMoments(0, 1, 10).stored, 2 * (3 * 64 + 8 * 256));
}

// docs/formats/gguf.md has the measurement: about twice the time of Q3_K.
TEST(WorkModelTest, TypesWithCodebooksTakeLonger) {
  const ModelInventory model = testing::LlamaInventory({});
  const auto units = UnitsOf(model, 0);
  const MethodTraits sweeping{.calibrated = true, .refined = true, .block_sweeps = 4};
  const auto descent = [&](const char* id) {
    Work work = WorkModel(&model).Quantize(
        units, std::vector<std::vector<const WeightFormat*>>(units.size(), {Gguf(id)}), sweeping);
    work.products = work.factor = work.loaded = work.stored = work.tasks = 0;
    return work.Operations();
  };
  EXPECT_GT(descent("gguf-iq3_s"), 1.7 * descent("gguf-q3_k"));
  EXPECT_LT(descent("gguf-iq2_s"), 2.7 * descent("gguf-q3_k"));
}

TEST(WorkModelTest, QuantizingGrowsWithFormatsAndMethod) {
  const ModelInventory model = testing::LlamaInventory({});  // its groups of 128 divide
  const WorkModel work(&model);
  const auto units = UnitsOf(model, 0);
  double weights = 0;
  for (const AllocationUnit* unit : units) weights += static_cast<double>(unit->num_weights());
  const std::vector<std::vector<const WeightFormat*>> one(units.size(), {Width(8)});
  const std::vector<std::vector<const WeightFormat*>> two(units.size(), {Width(4), Width(8)});
  const Work rounded = work.Quantize(units, one, {});
  EXPECT_EQ(rounded.rounded, weights);
  EXPECT_EQ(rounded.products, 0);
  EXPECT_EQ(rounded.factor, 0);
  EXPECT_EQ(work.Quantize(units, two, {}).rounded, 2 * weights);
  const Work calibrated = work.Quantize(units, two, {.calibrated = true, .refined = true});
  // q, k, v share a factor, and so do gate and up: 256 inputs for attention, for o and for the MLP,
  // 768 for down.
  EXPECT_EQ(calibrated.factor, 3 * std::pow(256.0, 3) + std::pow(768.0, 3));
  EXPECT_EQ(calibrated.refined, weights);  // of the four bits alone
  EXPECT_GT(calibrated.products, 0);
  // GGUF's blocks are swept over, grids are not.
  const std::vector<std::vector<const WeightFormat*>> blocks(units.size(), {Gguf("gguf-q4_k")});
  const MethodTraits sweeping{.calibrated = true, .refined = true, .block_sweeps = 3};
  const Work swept = work.Quantize(units, blocks, sweeping);
  EXPECT_EQ(swept.descended, 3 * weights);
  EXPECT_EQ(swept.refined, 0);
  const Work once = work.Quantize(units, blocks, {.calibrated = true, .block_sweeps = 3});
  EXPECT_EQ(once.descended, 0);
  // A sweep multiplies each row of errors with all of H, where feedback does with half of it.
  EXPECT_NEAR(swept.products / once.products, 7, 1e-9);
  EXPECT_EQ(work.Quantize(units, two, sweeping).descended, 0);
  const std::vector<std::vector<const WeightFormat*>> fine(units.size(), {Gguf("gguf-q6_k")});
  EXPECT_EQ(work.Quantize(units, fine, sweeping).descended, 0);
  // Dense costs nothing.
  const std::vector<std::vector<const WeightFormat*>> dense(units.size(), {DenseFormat()});
  EXPECT_EQ(work.Quantize(units, dense, {.calibrated = true}).rounded, 0);
}

TEST(WorkModelTest, ExchangingALateLayerIsCheap) {
  const WorkModel model(&Tiny());
  const TextSize text{.tokens = 10, .sequence = 4};
  const Work first = model.Exchange(Place::Layer(0), 8, text);
  const Work last = model.Exchange(Place::Layer(2), 8, text);
  EXPECT_EQ(first.products, 8 * 10 * 3 * kLayerWeights + 9 * 10 * kHeadWeights);
  EXPECT_EQ(last.products, 8 * 10 * kLayerWeights + 9 * 10 * kHeadWeights);
  EXPECT_EQ(model.Exchange(Place::Head(), 2, text).products, 3 * 10 * kHeadWeights);
  EXPECT_EQ(model.Exchange(Place::Embedding(), 1, text).products,
            10 * 3 * kLayerWeights + 2 * 10 * kHeadWeights);
}

TEST(WorkModelTest, ATokenMeetsFewExperts) {
  ModelInventory mixture = Tiny();
  std::vector<LinearShape>& experts = mixture.units[3].linears;  // of layer 0, down: 128 weights
  ASSERT_EQ(experts.size(), 1u);
  experts.resize(8, experts.front());
  const Work work = WorkModel(&mixture).Layers(0, 1, {.tokens = 10, .sequence = 4});
  EXPECT_EQ(work.products, 10 * (kLayerWeights + 128));  // two of eight
  EXPECT_EQ(work.loaded, kLayerWeights + 7 * 128);       // all of them
}

TEST(WorkModelTest, ATextIsReadAsOftenAsItsMeasuresAsk) {
  const WorkModel model(&Tiny());
  const TextSize text{.tokens = 10, .sequence = 4};
  const double once = 10 * (3 * kLayerWeights + kHeadWeights);
  EXPECT_EQ(model.EvaluateText(text, 10, false).products, 2 * once);
  EXPECT_EQ(model.EvaluateText(text, 10, true).products, 3 * once);
  // A text of few bytes per token has more of them in the rolling form, whose last window of 2048,
  // which is what the model takes, is a full one.
  EXPECT_EQ(model.EvaluateText(text, 40, false).products, 5 * once);
  EXPECT_EQ(model.EvaluateText(text, 2049, false).products, once + 2 * 2048 * once / 10);
  EXPECT_EQ(model.Trial(text).products, once + 10 * kHeadWeights);
}

TEST(WorkModelTest, OperationsNeverShrink) {
  const WorkModel model(&Tiny());
  const Work work = model.Exchange(Place::Layer(0), 8, {.tokens = 10, .sequence = 4});
  EXPECT_GT(work.Operations(), work.products);
  EXPECT_DOUBLE_EQ((work + work).Operations(), 2 * work.Operations());
  EXPECT_DOUBLE_EQ((work * 3).Operations(), 3 * work.Operations());
  for (double Work::*part : {&Work::products, &Work::attention, &Work::moments, &Work::factor,
                             &Work::loaded, &Work::rounded, &Work::refined, &Work::descended,
                             &Work::probabilities, &Work::encoded, &Work::stored, &Work::tasks}) {
    Work more = work;
    more.*part += 1;
    EXPECT_GT(more.Operations(), work.Operations());
  }
}

// The shapes that the estimates are made for, in the order in which they take time.
TEST(WorkModelTest, LargerModelsTakeLonger) {
  const testing::LlamaShape shapes[] = {{.layers = 30,
                                         .hidden = 576,
                                         .intermediate = 1536,
                                         .heads = 9,
                                         .kv_heads = 3,
                                         .vocab = 49152},
                                        {.layers = 16,
                                         .hidden = 2048,
                                         .intermediate = 8192,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .vocab = 128256},
                                        {.layers = 32,
                                         .hidden = 4096,
                                         .intermediate = 14336,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .vocab = 128256,
                                         .tied = false}};
  double before = 0;
  for (const testing::LlamaShape& shape : shapes) {
    const ModelInventory model = testing::LlamaInventory(shape);
    const double operations =
        WorkModel(&model).WholeModel({.tokens = 32768, .sequence = 512}).Operations();
    EXPECT_GT(operations, 5 * before);
    before = operations;
  }
}

}  // namespace
}  // namespace lwq
