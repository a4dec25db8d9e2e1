// An artifact without some of the source's layers: its config.json says so, it is proven, and it is
// the model that the plan's weights make.
#include "worker/engine/artifact/artifact_config.h"

#include <algorithm>
#include <cstring>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/families.h"

namespace lwq::testing {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

DecoderSpec SpecWithWindows(const std::vector<int64_t>& windows) {
  DecoderSpec spec;
  for (const int64_t window : windows) spec.layers.emplace_back().attention.sliding_window = window;
  return spec;
}

TEST(ConfigOfLayersTest, TellsTheNumberAndWhichHaveAWindow) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      std::string text,
      ConfigOfLayers(R"({"num_hidden_layers": 4, "x": [1]})", SpecWithWindows({0, 0, 0, 0}), {1, 3}));
  EXPECT_EQ(Json::parse(text), Json::parse(R"({"num_hidden_layers": 2, "x": [1]})"));
  // A pattern that goes by the layer's number would put windows elsewhere.
  LWQ_ASSERT_OK_AND_ASSIGN(text, ConfigOfLayers(R"({"num_hidden_layers": 4})",
                                                SpecWithWindows({8, 8, 0, 8}), {1, 2}));
  EXPECT_EQ(Json::parse(text)["layer_types"], Json({"sliding_attention", "full_attention"}));
  LWQ_ASSERT_OK_AND_ASSIGN(
      text, ConfigOfLayers(R"({"layer_types": ["a", "b"]})", SpecWithWindows({0, 0}), {1}));
  EXPECT_EQ(Json::parse(text)["layer_types"], Json::array({"full_attention"}));
  EXPECT_THAT(ConfigOfLayers("[]", SpecWithWindows({0}), {0}),
              FailsWith("CONFIG_INVALID", HasSubstr("object")));
}

// The first layer is left out, the second is quantized where a format takes it.
Plan WithoutTheFirst(const ModelInventory& model) {
  Plan plan;
  for (const AllocationUnit& unit : model.units) {
    const WeightFormat* format = GridFormat::Find(4, 0, true);
    const bool fits =
        plan.size() % 2 == 0 &&
        std::all_of(unit.linears.begin(), unit.linears.end(), [&](const LinearShape& linear) {
          return format->Accepts(linear.out_features, linear.in_features).ok();
        });
    plan.push_back(unit.place == Place::Layer(0) ? nullptr : fits ? format : DenseFormat());
  }
  return plan;
}

absl::StatusOr<Matrix> Logits(const DecoderSpec& spec, const WeightSource& weights) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(spec, &weights, device.get(), ComputeType::kF32));
  TokenBatch batch;
  std::vector<int32_t> tokens;
  for (int i = 0; i < 30; ++i) tokens.push_back(i * 37 % 64);
  batch.Add(tokens);
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  return testing::WholeLogits(*decoder, hidden.view());
}

class DroppedFamily : public ::testing::TestWithParam<const char*> {};

TEST_P(DroppedFamily, IsProvenAndComputesWithTheLayersThatAreLeft) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
  const std::string source = absl::StrCat(LWQ_SOURCE_DIR "/tests/golden/families/", GetParam());
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made,
                           MakeMixed(source, std::make_unique<TempDirectory>(std::move(scratch)),
                                     &WithoutTheFirst));
  ASSERT_OK(CheckKept(made.model, made.plan));
  const std::string out = made.Directory("dropped");
  ASSERT_OK(WriteArtifact(made.Parts(), out));
  LWQ_ASSERT_OK_AND_ASSIGN(const VerifyReport report, VerifyArtifact(made.Parts(), out));
  EXPECT_GT(report.num_quantized_linears, 0);

  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec of_source, ReadDecoderSpec(source));
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec of_artifact, ReadDecoderSpec(out));
  EXPECT_EQ(of_artifact.num_layers(), of_source.num_layers() - 1);
  for (int layer = 0; layer < of_artifact.num_layers(); ++layer) {
    const AttentionSpec& found = of_artifact.layers[static_cast<size_t>(layer)].attention;
    const AttentionSpec& expected = of_source.layers[static_cast<size_t>(layer) + 1].attention;
    EXPECT_EQ(found.sliding_window, expected.sliding_window);
    EXPECT_EQ(found.rope, expected.rope);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out));
  const auto dense = MakeCheckpointWeights(made.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto overlay,
                           MakePlanWeights(dense.get(), made.model, made.plan, made.blob_set));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found, Logits(of_artifact, *artifact));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Matrix expected,
      Logits(WithLayers(of_source, KeptLayers(made.model, made.plan)), *overlay));
  EXPECT_EQ(std::memcmp(found.data(), expected.data(),
                        sizeof(float) * static_cast<size_t>(found.size())),
            0);
}

INSTANTIATE_TEST_SUITE_P(Families, DroppedFamily,
                         ::testing::Values("gemma2", "gemma3", "llama", "mistral", "phi3", "qwen",
                                           "qwen2", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lwq::testing
