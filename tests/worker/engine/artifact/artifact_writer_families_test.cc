// An artifact of each family: written as forecast, proven, and the same model as its blobs laid
// over the source, down to the bits of the logits.
#include <algorithm>
#include <cstring>

#include "tests/testing/status_matchers.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/model/decoder.h"

namespace lwq::testing {
namespace {

// Formats by row, in turn; units of which a linear is too small for one stay as they are.
Plan RowFormats(const ModelInventory& model) {
  const WeightFormat* const cycle[] = {GridFormat::Find(4, 0, true), GridFormat::Find(8, 0, true),
                                       GridFormat::Find(3, 0, false), DenseFormat(),
                                       GridFormat::Find(8, 0, false)};
  Plan plan;
  for (const AllocationUnit& unit : model.units) {
    const WeightFormat* format = cycle[plan.size() % std::size(cycle)];
    const bool fits =
        std::all_of(unit.linears.begin(), unit.linears.end(), [format](const LinearShape& linear) {
          return format->Accepts(linear.out_features, linear.in_features).ok();
        });
    plan.push_back(fits ? format : DenseFormat());
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

class FamilyArtifact : public ::testing::TestWithParam<const char*> {};

TEST_P(FamilyArtifact, IsProvenAndGivesTheLogitsOfItsPlan) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
  const std::string source =
      JoinPath(LWQ_SOURCE_DIR "/tests/golden/families", std::string(GetParam()));
  LWQ_ASSERT_OK_AND_ASSIGN(
      MadeArtifact made,
      MakeMixed(source, std::make_unique<TempDirectory>(std::move(scratch)), &RowFormats));
  const std::string out = made.Directory("artifact");
  ASSERT_OK(WriteArtifact(made.Parts(), out));
  LWQ_ASSERT_OK_AND_ASSIGN(const VerifyReport report, VerifyArtifact(made.Parts(), out));
  EXPECT_EQ(report.num_quantized_linears, static_cast<int64_t>(made.linears.size()));
  EXPECT_GE(report.num_quantized_linears, 5);
  EXPECT_EQ(report.num_dense_tensors + report.num_quantized_linears,
            static_cast<int64_t>(made.source->tensor_names().size()));

  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(out));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out));
  const auto dense = MakeCheckpointWeights(made.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto overlay,
                           MakePlanWeights(dense.get(), made.model, made.plan, made.blob_set));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found, Logits(spec, *artifact));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix expected, Logits(spec, *overlay));
  EXPECT_EQ(
      std::memcmp(found.data(), expected.data(), sizeof(float) * static_cast<size_t>(found.size())),
      0);
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix of_source, Logits(spec, *dense));
  EXPECT_NE(std::memcmp(found.data(), of_source.data(),
                        sizeof(float) * static_cast<size_t>(found.size())),
            0);
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyArtifact,
                         ::testing::Values("llama", "mistral", "qwen", "qwen2", "qwen3", "phi3",
                                           "gemma2", "gemma3"),
                         [](const auto& info) { return std::string(info.param); });

// A target must name the module that the checkpoint has, and inference engines' own for what they
// fuse.
TEST(FamilyArtifactTargets, AreFusedModulesWhereTheCheckpointHasThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"phi3", "layers\\\\.(?:0)\\\\.self_attn\\\\.qkv_proj$"},
      {"phi3", "layers\\\\.(?:0)\\\\.mlp\\\\.gate_up_proj$"},
      {"qwen", "h\\\\.(?:0)\\\\.attn\\\\.c_attn$"},
      {"qwen", "h\\\\.(?:0)\\\\.mlp\\\\.(?:w2|w1|gate_up_proj)$"},
      {"gemma3", "layers\\\\.(?:0)\\\\.self_attn\\\\.(?:q_proj|k_proj|v_proj|qkv_proj)$"}};
  for (const auto& [family, target] : cases) {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    LWQ_ASSERT_OK_AND_ASSIGN(
        MadeArtifact made,
        MakeMixed(JoinPath(LWQ_SOURCE_DIR "/tests/golden/families", std::string(family)),
                  std::make_unique<TempDirectory>(std::move(scratch)), &RowFormats));
    const std::string out = made.Directory("artifact");
    ASSERT_OK(WriteArtifact(made.Parts(), out));
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string config,
                             ReadFile(JoinPath(out, "config.json"), 1 << 20));
    EXPECT_THAT(config, ::testing::HasSubstr(target)) << family;
  }
}

}  // namespace
}  // namespace lwq::testing
