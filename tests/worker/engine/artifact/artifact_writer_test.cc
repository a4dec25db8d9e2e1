#include "worker/engine/artifact/artifact_writer.h"

#include <cstring>

#include "absl/strings/match.h"
#include "base/hash.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/verify.h"

namespace lwq {
namespace {

using ::testing::_;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::MadeArtifact;
using testing::MakeMixedTiny;
using testing::TinyModelOptions;

// Options of a source, named for ctest.
struct SourceCase {
  const char* name;
  DType dtype;
  bool tied;
  int num_shards;
  int64_t max_shard_bytes;
};

class ArtifactWriterTest : public ::testing::TestWithParam<SourceCase> {};

TEST_P(ArtifactWriterTest, WritesTheForecastAndReadsBackThePlan) {
  TinyModelOptions options;
  options.dtype = GetParam().dtype;
  options.tied_embeddings = GetParam().tied;
  options.num_shards = GetParam().num_shards;
  options.vocab_size = 512;
  options.num_layers = 3;
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny(options));
  const ArtifactPlan plan = made.Parts(GetParam().max_shard_bytes);
  const std::string out = made.Directory("artifact");
  int64_t last_done = 0;
  LWQ_ASSERT_OK_AND_ASSIGN(auto files, WriteArtifact(plan, out, [&](int64_t done, int64_t total) {
                             EXPECT_GE(done, last_done);
                             EXPECT_LE(done, total);
                             last_done = done;
                             return absl::OkStatus();
                           }));
  int64_t weight_bytes = 0;
  for (const WrittenFile& file : files) {
    LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out, file.name)));
    EXPECT_EQ(size, file.size_bytes) << file.name;
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string digest, Sha256HexOfFile(JoinPath(out, file.name)));
    EXPECT_EQ(digest, file.sha256) << file.name;
    if (absl::EndsWith(file.name, ".safetensors")) weight_bytes += size;
  }
  const CheckpointLayout layout = LayOutArtifact(made.model, made.plan, plan.max_shard_bytes);
  EXPECT_EQ(weight_bytes, layout.weight_bytes);
  EXPECT_EQ(last_done, layout.weight_bytes);
  EXPECT_EQ(layout.files.size() > 1, GetParam().max_shard_bytes > 0);

  LWQ_ASSERT_OK_AND_ASSIGN(const VerifyReport report, VerifyArtifact(plan, out));
  EXPECT_EQ(report.num_quantized_linears, static_cast<int64_t>(made.linears.size()));
  EXPECT_EQ(report.weight_bytes, weight_bytes);

  // The artifact, the overlay of blobs on the source, and the codes themselves are one model.
  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out));
  const auto dense = MakeCheckpointWeights(made.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto overlay,
                           MakePlanWeights(dense.get(), made.model, made.plan, made.blob_set));
  for (const AllocationUnit& unit : made.model.units) {
    for (const LinearShape& linear : unit.linears) {
      Matrix a(linear.out_features, linear.in_features);
      Matrix b(linear.out_features, linear.in_features);
      ASSERT_OK(artifact->ReadLinear(linear.module, a.view()));
      ASSERT_OK(overlay->ReadLinear(linear.module, b.view()));
      ASSERT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size()) * 4), 0)
          << linear.module;
      const auto found = made.linears.find(linear.module);
      if (found == made.linears.end()) continue;
      const QuantizedLinear& q = found->second;
      const float zero =
          q.grid.symmetric ? static_cast<float>(1 << (q.grid.bits - 1)) : q.zeros.data()[0];
      EXPECT_EQ(a.data()[0], q.scales.data()[0] * (static_cast<float>(q.codes[0]) - zero));
    }
  }
  for (const TensorSpec& tensor : made.model.dense) EXPECT_TRUE(artifact->HasDense(tensor.name));
}

INSTANTIATE_TEST_SUITE_P(
    Sources, ArtifactWriterTest,
    ::testing::Values(SourceCase{"bf16_tied", DType::kBF16, true, 1, 0},
                      SourceCase{"f16_untied", DType::kF16, false, 1, 0},
                      SourceCase{"f32_tied_sharded", DType::kF32, true, 2, 100000},
                      SourceCase{"bf16_untied_sharded", DType::kBF16, false, 3, 60000}),
    [](const auto& info) { return info.param.name; });

TEST(ArtifactTest, TheSamePlanGivesTheSameBytes) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  LWQ_ASSERT_OK_AND_ASSIGN(auto first, WriteArtifact(made.Parts(), made.Directory("a")));
  LWQ_ASSERT_OK_AND_ASSIGN(auto second, WriteArtifact(made.Parts(), made.Directory("b")));
  ASSERT_EQ(first.size(), second.size());
  for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].sha256, second[i].sha256);
}

TEST(ArtifactTest, AnArtifactIsNotWrittenOverOtherFiles) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  EXPECT_THAT(WriteArtifact(made.Parts(), made.Directory("model")),
              FailsWith("OUTPUT_NOT_EMPTY", HasSubstr("already has files")));
}

TEST(ArtifactTest, AMissingBlobIsNamed) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  made.plan[0] = GridFormat::Find(5, 64, true);
  EXPECT_THAT(
      WriteArtifact(made.Parts(), made.Directory("artifact")),
      FailsWith("BLOB_MISSING", HasSubstr("model.layers.0.self_attn.k_proj in format int5-g64")));
}

TEST(ArtifactTest, ProgressCanStopTheWriting) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  const auto stop = [](int64_t, int64_t) { return absl::CancelledError("stop"); };
  EXPECT_THAT(WriteArtifact(made.Parts(), made.Directory("artifact"), stop),
              testing::StatusIs(absl::StatusCode::kCancelled, _));
}

class VerifyPlanTest : public ::testing::TestWithParam<Plan (*)(const ModelInventory&)> {};
INSTANTIATE_TEST_SUITE_P(Plans, VerifyPlanTest,
                         ::testing::Values(&testing::MixedPlan, &testing::EightBitPlan),
                         [](const auto& info) {
                           return info.param == &testing::MixedPlan ? "grids" : "eight_bits";
                         });

// Flips one bit at a time in every tensor of the artifact: each must be found.
TEST_P(VerifyPlanTest, EveryFlippedBitIsFound) {
  TinyModelOptions options;
  options.num_layers = 1;
  options.vocab_size = 64;
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny(options, GetParam()));
  const std::string out = made.Directory("artifact");
  ASSERT_OK(WriteArtifact(made.Parts(), out));
  ASSERT_OK(VerifyArtifact(made.Parts(), out));
  const std::string path = JoinPath(out, "model.safetensors");
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string good, ReadFile(path, 1 << 30));
  const CheckpointLayout layout = LayOutArtifact(made.model, made.plan, 0);
  const SafetensorsLayout& file = layout.files[0].layout;
  for (size_t t = 0; t < file.tensors.size(); ++t) {
    std::string bad = good;
    const int64_t middle = file.offsets[t] + file.tensors[t].size_bytes() / 2;
    bad[file.header.size() + static_cast<size_t>(middle)] ^= 1;
    ASSERT_OK(WriteFileAtomically(path, bad));
    const auto report = VerifyArtifact(made.Parts(), out);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kDataLoss) << file.tensors[t].name;
    const std::string name = file.tensors[t].name;
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(name.substr(0, name.rfind('.'))));
  }
}

TEST(VerifyTest, AnotherConfigOrAnExtraTensorIsFound) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  const std::string out = made.Directory("artifact");
  ASSERT_OK(WriteArtifact(made.Parts(), out));
  ArtifactPlan other = made.Parts();
  Plan plan = made.plan;
  plan[0] = DenseFormat();
  other.plan = &plan;
  EXPECT_THAT(VerifyArtifact(other, out), FailsWith("VERIFY_MISMATCH", HasSubstr("config.json")));
  std::vector<DenseTensor> dense = made.model.dense;
  made.model.dense.pop_back();
  EXPECT_THAT(VerifyArtifact(made.Parts(), out), FailsWith("VERIFY_MISMATCH", _));
}

TEST(ArtifactWriterTest, TheSampleModelsTokenizerComesWithTheArtifact) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory out, TempDirectory::Create());
  LWQ_ASSERT_OK_AND_ASSIGN(auto files, CopyCompanionFiles(testing::SampleModelPath(), out.path()));
  std::vector<std::string> names;
  for (const WrittenFile& file : files) names.push_back(file.name);
  EXPECT_THAT(names,
              ::testing::ElementsAre("generation_config.json", "special_tokens_map.json",
                                     "tokenizer.json", "tokenizer.model", "tokenizer_config.json"));
}

}  // namespace
}  // namespace lwq
