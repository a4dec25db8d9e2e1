#include "worker/engine/artifact/convert.h"

#include <cstring>

#include "absl/strings/match.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

using testing::FailsWith;
using testing::MadeArtifact;
using testing::TinyModelOptions;
using ::testing::HasSubstr;

// Of what all kinds hold; unit 2 is dense.
Plan SymmetricPlan(const ModelInventory& model) {
  const WeightFormat* const cycle[] = {GridFormat::Find(4, 64, true), GridFormat::Find(2, 32, true),
                                       DenseFormat(), GridFormat::Find(8, 0, true),
                                       GridFormat::Find(3, 32, true)};
  Plan plan;
  for (size_t i = 0; i < model.units.size(); ++i) plan.push_back(cycle[i % std::size(cycle)]);
  return plan;
}

class ConvertTest : public ::testing::Test {
 protected:
  // An artifact of kind `format` in "start".
  void Make(DType dtype, const ArtifactFormatDef& format,
            Plan (*plan)(const ModelInventory& model) = &SymmetricPlan) {
    TinyModelOptions options;
    options.dtype = dtype;
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    const std::string directory = JoinPath(scratch.path(), "model");
    ASSERT_OK(WriteTinyModel(options, directory));
    LWQ_ASSERT_OK_AND_ASSIGN(
        made_, testing::MakeMixed(directory, std::make_unique<TempDirectory>(std::move(scratch)),
                                  plan));
    made_.model = PlannedAs(format, std::move(made_.model));
    ASSERT_OK(ContainerOf(format).write(made_.Parts(), made_.Directory("start"), nullptr));
  }
  absl::StatusOr<ConvertedArtifact> Convert(const std::string& from, const ArtifactFormatDef& to,
                                            const std::string& name, bool round_scales = false) {
    return ConvertArtifact(made_.Directory(from), to, made_.Directory(name),
                           {.round_scales = round_scales});
  }
  std::string Bytes(const std::string& name, const std::string& file) {
    return ReadFile(JoinPath(made_.Directory(name), file), 1 << 30).value();
  }
  MadeArtifact made_;
};

TEST_F(ConvertTest, ThereAndBackGivesTheSameFiles) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const ArtifactFormatDef* const kinds[] = {&ArtifactFormatDefs::compressed_tensors,
                                              &ArtifactFormatDefs::gptq};
    for (int i = 0; i < 2; ++i) {
      made_ = MadeArtifact();
      ASSERT_NO_FATAL_FAILURE(Make(dtype, *kinds[i]));
      LWQ_ASSERT_OK_AND_ASSIGN(const ConvertedArtifact there, Convert("start", *kinds[1 - i], "there"));
      EXPECT_EQ(there.from, kinds[i]);
      EXPECT_EQ(there.rounded_scales, 0);
      EXPECT_GT(there.linears.at("int3-g32"), 0);
      LWQ_ASSERT_OK_AND_ASSIGN(const ConvertedArtifact back, Convert("there", *kinds[i], "back"));
      EXPECT_EQ(back.from, kinds[1 - i]);
      for (const char* file : {"model.safetensors", "config.json"}) {
        EXPECT_TRUE(Bytes("start", file) == Bytes("back", file)) << file;
        EXPECT_FALSE(Bytes("start", file) == Bytes("there", file)) << file;
      }
    }
  }
}

TEST_F(ConvertTest, AGgufFileHasTheSameWeights) {
  ASSERT_NO_FATAL_FAILURE(Make(DType::kBF16, ArtifactFormatDefs::compressed_tensors));
  LWQ_ASSERT_OK_AND_ASSIGN(const ConvertedArtifact made,
                           Convert("start", ArtifactFormatDefs::gguf, "file"));
  EXPECT_EQ(made.linears.count("gguf-q4_0") + made.linears.count("gguf-q8_0"), 2u);
  LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact a, OpenArtifact(made_.Directory("start"), ""));
  LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact b,
                           OpenArtifact(made_.Directory("file"), made_.Directory("model")));
  for (const AllocationUnit& unit : made_.model.units) {
    for (const LinearShape& linear : unit.linears) {
      Matrix x(linear.out_features, linear.in_features), y(linear.out_features, linear.in_features);
      ASSERT_OK(a.weights->ReadLinear(linear.module, x.view()));
      ASSERT_OK(b.weights->ReadLinear(linear.module, y.view()));
      EXPECT_TRUE(std::equal(x.data(), x.data() + x.size(), y.data())) << linear.module;
    }
  }
}

TEST_F(ConvertTest, TheManifestListsTheFiles) {
  ASSERT_NO_FATAL_FAILURE(Make(DType::kF16, ArtifactFormatDefs::compressed_tensors));
  ASSERT_OK(Convert("start", ArtifactFormatDefs::gptq, "there"));
  const auto manifest = nlohmann::json::parse(Bytes("there", "lwq-manifest.json"));
  std::vector<std::string> names;
  for (const auto& file : manifest["files"]) names.push_back(file["name"]);
  EXPECT_THAT(names, ::testing::IsSupersetOf({"model.safetensors", "config.json",
                                              "quantize_config.json", "tokenizer.json"}));
  EXPECT_EQ(manifest["provenance"]["converted"]["from"], "compressed-tensors");
}

TEST_F(ConvertTest, ZeroPointsAreNotWrittenInGptq) {
  const auto affine = [](const ModelInventory& model) {
    return Plan(model.units.size(), GridFormat::Find(4, 64, false));
  };
  ASSERT_NO_FATAL_FAILURE(Make(DType::kF16, ArtifactFormatDefs::compressed_tensors, affine));
  EXPECT_THAT(Convert("start", ArtifactFormatDefs::gptq, "there"),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("with zero points, which gptq cannot hold")));
  EXPECT_OK(Convert("start", ArtifactFormatDefs::gguf, "file"));
}

TEST_F(ConvertTest, WidthsThatGptqsKernelsDoNotHaveAreRefusedAtOnce) {
  const auto six = [](const ModelInventory& model) {
    return Plan(model.units.size(), GridFormat::Find(6, 64, true));
  };
  ASSERT_NO_FATAL_FAILURE(Make(DType::kF16, ArtifactFormatDefs::compressed_tensors, six));
  EXPECT_THAT(Convert("start", ArtifactFormatDefs::gptq, "there"),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("which gptq cannot hold")));
}

// Another tool's scales have the eleven bits of F16, of which BF16 has eight.
TEST_F(ConvertTest, ScalesThatTheTargetDoesNotHaveAreRefusedOrRounded) {
  ASSERT_NO_FATAL_FAILURE(Make(DType::kBF16, ArtifactFormatDefs::gptq));
  const std::string path = JoinPath(made_.Directory("start"), "model.safetensors");
  LWQ_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(path, 1 << 30));
  const CheckpointLayout layout = LayOutArtifact(made_.model, made_.plan, 0);
  const SafetensorsLayout& file = layout.files[0].layout;
  for (size_t t = 0; t < file.tensors.size(); ++t) {
    if (!absl::EndsWith(file.tensors[t].name, ".scales")) continue;
    bytes[file.header.size() + static_cast<size_t>(file.offsets[t])] |= 1;
    break;
  }
  ASSERT_OK(WriteFileAtomically(path, bytes));
  EXPECT_THAT(Convert("start", ArtifactFormatDefs::compressed_tensors, "there"),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("not exact in BF16")));
  LWQ_ASSERT_OK_AND_ASSIGN(const ConvertedArtifact rounded,
                           Convert("start", ArtifactFormatDefs::compressed_tensors, "rounded", true));
  EXPECT_EQ(rounded.rounded_scales, 1);
  EXPECT_GT(rounded.largest_rounding, 0);
  EXPECT_LE(rounded.largest_rounding, 0x1p-9);
  EXPECT_OK(Convert("start", ArtifactFormatDefs::gguf, "file")) << "it has F16 scales";
}

// Below 2^-14 F16 has fewer bits with every power of two.
TEST_F(ConvertTest, ScalesThatF16HardlyHasAreNotRounded) {
  ASSERT_NO_FATAL_FAILURE(Make(DType::kBF16, ArtifactFormatDefs::compressed_tensors));
  const std::string path = JoinPath(made_.Directory("start"), "model.safetensors");
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string start, ReadFile(path, 1 << 30));
  const CheckpointLayout layout = LayOutArtifact(made_.model, made_.plan, 0);
  const SafetensorsLayout& file = layout.files[0].layout;
  const auto with_scale = [&](float scale) {
    std::string bytes = start;
    for (size_t t = 0; t < file.tensors.size(); ++t) {
      if (!absl::EndsWith(file.tensors[t].name, ".weight_scale")) continue;
      const uint16_t stored = FloatToBF16(scale);
      EXPECT_EQ(BF16ToFloat(stored), scale);
      std::memcpy(bytes.data() + file.header.size() + file.offsets[t], &stored, 2);
      return bytes;
    }
    ADD_FAILURE() << "no scales";
    return bytes;
  };
  ASSERT_OK(WriteFileAtomically(path, with_scale(0x1.8p-24f)));
  EXPECT_THAT(Convert("start", ArtifactFormatDefs::gptq, "coarse", true),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("would become")));
  ASSERT_OK(WriteFileAtomically(path, with_scale(0x1.02p-17f)));  // it has seven bits there
  EXPECT_OK(Convert("start", ArtifactFormatDefs::gptq, "exact"));
}

TEST_F(ConvertTest, AModelOfWhichNothingIsQuantizedIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Make(DType::kF16, ArtifactFormatDefs::gptq));
  EXPECT_THAT(Convert("model", ArtifactFormatDefs::gptq, "there"),
              FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("nothing to convert")));
}

}  // namespace
}  // namespace lwq
