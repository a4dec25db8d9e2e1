// Artifacts of which linears are multiplied in 8 bits: a byte a weight, as int-quantized and
// float-quantized have it, and the rule for their inputs.
#include <cstring>

#include "absl/strings/match.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/tensor/fp8.h"

namespace lwq {
namespace {

using testing::EightBitPlan;
using testing::MadeArtifact;
using testing::MakeMixedTiny;
using testing::TinyModelOptions;

class EightBitArtifact : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    TinyModelOptions options;
    options.dtype = GetParam();
    LWQ_ASSERT_OK_AND_ASSIGN(made_, MakeMixedTiny(options, &EightBitPlan));
    out_ = made_.Directory("artifact");
    ASSERT_OK(WriteArtifact(made_.Parts(), out_));
  }
  MadeArtifact made_;
  std::string out_;
};

INSTANTIATE_TEST_SUITE_P(Sources, EightBitArtifact,
                         ::testing::Values(DType::kBF16, DType::kF16, DType::kF32),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST_P(EightBitArtifact, IsTheForecastAndOpensWithThePlansWeightsAndRules) {
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out_, "model.safetensors")));
  EXPECT_EQ(size, LayOutArtifact(made_.model, made_.plan, 0).weight_bytes);
  ASSERT_OK(VerifyArtifact(made_.Parts(), out_));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out_));
  const auto dense = MakeCheckpointWeights(made_.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto overlay,
                           MakePlanWeights(dense.get(), made_.model, made_.plan, made_.blob_set));
  for (size_t i = 0; i < made_.model.units.size(); ++i) {
    for (const LinearShape& linear : made_.model.units[i].linears) {
      Matrix a(linear.out_features, linear.in_features), b(a.rows(), a.cols());
      ASSERT_OK(artifact->ReadLinear(linear.module, a.view()));
      ASSERT_OK(overlay->ReadLinear(linear.module, b.view()));
      EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size()) * 4), 0)
          << linear.module;
      EXPECT_EQ(artifact->RuleOf(linear.module), made_.plan[i]->activation_rule());
      EXPECT_EQ(overlay->RuleOf(linear.module), made_.plan[i]->activation_rule());
    }
  }
}

// The stored numbers are signed integers and E4M3: value = scale * number.
TEST_P(EightBitArtifact, StoresWeightsAsTheirEnginesReadThem) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, Checkpoint::Open(out_));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out_));
  int integers = 0, floats = 0;
  for (const std::string& name : file->tensor_names()) {
    LWQ_ASSERT_OK_AND_ASSIGN(const TensorView weight, file->Get(name));
    if (weight.dtype != DType::kI8 && weight.dtype != DType::kF8E4M3) continue;
    ASSERT_TRUE(absl::EndsWith(name, ".weight"));
    ++(weight.dtype == DType::kI8 ? integers : floats);
    LWQ_ASSERT_OK_AND_ASSIGN(const TensorView scales, file->Get(name + "_scale"));
    EXPECT_EQ(scales.shape, (std::vector<int64_t>{weight.shape[0], 1}));
    Matrix values(weight.shape[0], weight.shape[1]);
    ASSERT_OK(artifact->ReadDense(name, 0, values.view()));
    uint16_t bits;
    std::memcpy(&bits, scales.bytes.data() + 2 * 3, 2);
    const float scale = scales.dtype == DType::kBF16 ? BF16ToFloat(bits) : F16ToFloat(bits);
    for (int64_t c = 0; c < values.cols(); ++c) {
      const uint8_t code = weight.bytes[static_cast<size_t>(3 * values.cols() + c)];
      const float number = weight.dtype == DType::kI8
                               ? static_cast<float>(static_cast<int8_t>(code))
                               : E4M3ToFloat(code);
      EXPECT_EQ(values.Row(3)[c], scale * number);
    }
  }
  EXPECT_GT(integers, 0);
  EXPECT_GT(floats, 0);
}

}  // namespace
}  // namespace lwq
