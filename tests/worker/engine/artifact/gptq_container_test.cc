// A tiny model in GPTQ's layout: the forecast is the size, it opens with the plan's weights, and what
// is changed in it is found.
#include <cstring>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/container.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::lwq::testing::MadeArtifact;
using ::lwq::testing::TinyModelOptions;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

// Widths and groups go round over the units, and some stay dense.
Plan MixedPlan(const ModelInventory& model) {
  const WeightFormat* const cycle[] = {GridFormat::Find(4, 64, true), GridFormat::Find(2, 128, true),
                                       DenseFormat(), GridFormat::Find(8, 0, true),
                                       GridFormat::Find(3, 32, true)};
  Plan plan;
  for (size_t i = 0; i < model.units.size(); ++i) plan.push_back(cycle[i % std::size(cycle)]);
  return plan;
}

absl::StatusOr<MadeArtifact> Make(const TinyModelOptions& options) {
  LWQ_ASSIGN_OR_RETURN(TempDirectory scratch, TempDirectory::Create());
  const std::string directory = JoinPath(scratch.path(), "model");
  LWQ_RETURN_IF_ERROR(WriteTinyModel(options, directory));
  LWQ_ASSIGN_OR_RETURN(
      MadeArtifact made,
      testing::MakeMixed(directory, std::make_unique<TempDirectory>(std::move(scratch)),
                         &MixedPlan));
  made.model = PlannedAs(ArtifactFormatDefs::gptq, std::move(made.model));
  return made;
}

struct SourceCase {
  const char* name;
  DType dtype;
  bool tied;
  int64_t max_shard_bytes;
};
class GptqContainerTest : public ::testing::TestWithParam<SourceCase> {};

TEST_P(GptqContainerTest, TheFilesAreTheForecastAndOpenWithThePlansWeights) {
  TinyModelOptions options;
  options.dtype = GetParam().dtype;
  options.tied_embeddings = GetParam().tied;
  options.num_layers = 3;
  LWQ_ASSERT_OK_AND_ASSIGN(const MadeArtifact made, Make(options));
  const ArtifactPlan plan = made.Parts(GetParam().max_shard_bytes);
  const std::string out = made.Directory("artifact");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto files, ContainerDefs::gptq.write(plan, out, nullptr));
  int64_t weight_bytes = 0;
  for (const WrittenFile& file : files) {
    LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out, file.name)));
    EXPECT_EQ(size, file.size_bytes);
    if (ContainerDefs::gptq.is_weight_file(file.name)) weight_bytes += size;
  }
  EXPECT_EQ(weight_bytes, WeightFileBytes(made.model, made.plan, GetParam().max_shard_bytes));
  LWQ_ASSERT_OK_AND_ASSIGN(const VerifyReport report, ContainerDefs::gptq.verify(plan, out));
  EXPECT_EQ(report.num_quantized_linears, static_cast<int64_t>(made.linears.size()));
  EXPECT_EQ(report.weight_bytes, weight_bytes);

  LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact artifact, OpenArtifact(out, ""));
  const auto dense = MakeCheckpointWeights(made.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto planned,
                           MakePlanWeights(dense.get(), made.model, made.plan, made.blob_set));
  for (const AllocationUnit& unit : made.model.units) {
    for (const LinearShape& linear : unit.linears) {
      Matrix a(linear.out_features, linear.in_features), b(linear.out_features, linear.in_features);
      ASSERT_OK(artifact.weights->ReadLinear(linear.module, a.view()));
      ASSERT_OK(planned->ReadLinear(linear.module, b.view()));
      EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size()) * 4), 0)
          << linear.module;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sources, GptqContainerTest,
                         ::testing::Values(SourceCase{"bf16_tied", DType::kBF16, true, 0},
                                           SourceCase{"f16_untied", DType::kF16, false, 0},
                                           SourceCase{"f32_untied_sharded", DType::kF32, false,
                                                      100000}),
                         [](const auto& info) { return info.param.name; });

TEST(GptqArtifactTest, SaysWhatItIsInBothPlaces) {
  LWQ_ASSERT_OK_AND_ASSIGN(const MadeArtifact made, Make({}));
  const std::string out = made.Directory("artifact");
  ASSERT_OK(ContainerDefs::gptq.write(made.Parts(), out, nullptr));
  EXPECT_TRUE(ContainerDefs::gptq.is_in(out));
  EXPECT_FALSE(ContainerDefs::compressed_tensors.is_in(out));
  EXPECT_FALSE(ContainerDefs::gptq.is_in(made.Directory("model")));
  EXPECT_TRUE(ContainerDefs::compressed_tensors.is_in(made.Directory("model")));
  const auto read = [&](const char* name) {
    return Json::parse(ReadFile(JoinPath(out, name), 1 << 20).value());
  };
  Json config = read("config.json");
  EXPECT_EQ(config["quantization_config"], read("quantize_config.json"));
  // Older checkpoints say it in the one place alone.
  config.erase("quantization_config");
  ASSERT_OK(WriteFileAtomically(JoinPath(out, "config.json"), config.dump()));
  EXPECT_TRUE(ContainerDefs::gptq.is_in(out));
  EXPECT_OK(OpenWeights(out));
  ASSERT_OK(WriteFileAtomically(JoinPath(out, "quantize_config.json"), "{\"bits\":4}"));
  EXPECT_THAT(OpenWeights(out), FailsWith("CONFIG_MISMATCH", HasSubstr("is stored")));
}

// One at a time in every tensor of the artifact: each must be found, and its linear named.
TEST(GptqArtifactTest, EveryFlippedBitIsFound) {
  TinyModelOptions options;
  options.num_layers = 1;
  options.vocab_size = 64;
  LWQ_ASSERT_OK_AND_ASSIGN(const MadeArtifact made, Make(options));
  const std::string out = made.Directory("artifact");
  ASSERT_OK(ContainerDefs::gptq.write(made.Parts(), out, nullptr));
  const std::string path = JoinPath(out, "model.safetensors");
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string good, ReadFile(path, 1 << 30));
  const CheckpointLayout layout = LayOutArtifact(made.model, made.plan, 0);
  const SafetensorsLayout& file = layout.files[0].layout;
  for (size_t t = 0; t < file.tensors.size(); ++t) {
    std::string bad = good;
    const int64_t middle = file.offsets[t] + file.tensors[t].size_bytes() / 2;
    bad[file.header.size() + static_cast<size_t>(middle)] ^= 1;
    ASSERT_OK(WriteFileAtomically(path, bad));
    const std::string name = file.tensors[t].name;
    const auto report = ContainerDefs::gptq.verify(made.Parts(), out);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kDataLoss) << name;
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(name.substr(0, name.rfind('.'))));
  }
  ASSERT_OK(WriteFileAtomically(path, good));
  ASSERT_OK(WriteFileAtomically(JoinPath(out, "quantize_config.json"), "{}"));
  EXPECT_THAT(ContainerDefs::gptq.verify(made.Parts(), out),
              FailsWith("VERIFY_MISMATCH", HasSubstr("quantize_config.json")));
}

}  // namespace
}  // namespace lwq
