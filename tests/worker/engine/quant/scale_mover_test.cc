// Methods that move scales along a layer's edges, in every family: what they move changes nothing
// by itself.
#include "worker/engine/quant/scale_mover.h"

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/quant/calibrated_model.h"
#include "worker/engine/format/grid.h"

namespace lwq::testing {
namespace {

// A method that edits, and what makes it move scales on small models.
struct Mover {
  const char* method;
  const WeightFormat* (*format)();
  OptionTexts options;
};
const std::vector<Mover>& Movers() {
  static const auto& movers = *new std::vector<Mover>{
      {"awq",
       +[]() -> const WeightFormat* { return GridFormat::Find(4, 0, true); },
       {{"search-bits", "2"}}},
      {"smoothquant",
       +[]() -> const WeightFormat* { return GridFormat::WithRoundedInputs(); },
       {}}};
  return movers;
}

class MovedScales : public ::testing::TestWithParam<std::tuple<size_t, const char*>> {};

// Norms with an offset, biases, grouped queries, fused linears: with the linears left unrounded,
// the edited model is the source. Logits reach 5, so 1e-4 is some 300 roundings of F32.
TEST_P(MovedScales, AloneChangeNothing) {
  const auto& [mover, family] = GetParam();
  const auto& [method, format, options] = Movers()[mover];
  LWQ_ASSERT_OK_AND_ASSIGN(
      const CalibratedModel model,
      Calibrate(absl::StrCat(LWQ_SOURCE_DIR "/tests/golden/families/", family)));
  LayerEdits edits;
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    LWQ_ASSERT_OK_AND_ASSIGN(LayerResult result, Quantize(model, method, layer, format(), options));
    edits.Add(std::move(result.edits));
  }
  EXPECT_FALSE(edits.empty()) << "no scale was moved: the case shows nothing";
  const auto edited = MakeEditedWeights(model.weights.get(), &edits, DType::kF32);
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix of_source, Logits(model, *model.weights));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix of_edited, Logits(model, *edited));
  EXPECT_LT(LargestDifference(of_edited, of_source), 1e-4);
  // Every end of an edge took part: without one of them the model is another.
  for (const bool tensors : {true, false}) {
    LayerEdits half;
    if (tensors) half.tensors = edits.tensors;
    if (!tensors) half.linears = edits.linears;
    if (half.empty()) continue;
    const auto broken = MakeEditedWeights(model.weights.get(), &half, DType::kF32);
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix of_broken, Logits(model, *broken));
    EXPECT_GT(LargestDifference(of_broken, of_source), 1e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, MovedScales,
    ::testing::Combine(::testing::Range(size_t{0}, Movers().size()),
                       ::testing::Values("gemma2", "gemma3", "llama", "mistral", "mixtral", "phi3",
                                         "qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe")),
    [](const auto& info) {
      return absl::StrCat(Movers()[std::get<0>(info.param)].method, "_", std::get<1>(info.param));
    });

}  // namespace
}  // namespace lwq::testing
