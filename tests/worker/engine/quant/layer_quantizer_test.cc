// What the adapter does itself: formats that no method has a say in.
#include "worker/engine/quant/layer_quantizer.h"

#include <cmath>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_devices.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/engine/quant/calibrated_model.h"
#include "worker/engine/format/fp8_row.h"

namespace lwq::testing {
namespace {

// The errors D of a linear's weights and the damped second moments H of what it reads.
struct Errors {
  Matrix d, h;
  // tr(D H D^T), and how far from sum of H_kk D_nk^2 it lies when the errors of a row do not depend
  // on each other: a standard deviation.
  double exact = 0, deviation = 0;
};

absl::StatusOr<Errors> ErrorsOf(const CalibratedModel& model, const LinearSpec& linear,
                                const EncodedLinear& encoded, double damping) {
  const int64_t rows = linear.shape.out_features, cols = linear.shape.in_features;
  StoredLinear stored{Fp8RowFormat::Find(), rows, cols, {}};
  for (const EncodedPart& part : encoded) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(part.bytes.data());
    stored.parts.push_back({part.spec.dtype, part.spec.shape, {bytes, part.bytes.size()}});
  }
  Errors errors{Matrix(rows, cols), Matrix(cols, cols)};
  Matrix weight(rows, cols);
  LWQ_RETURN_IF_ERROR(model.weights->ReadLinear(linear.shape.module, weight.view()));
  LWQ_RETURN_IF_ERROR(DequantizeLinear(linear.shape.module, stored, errors.d.view()));
  for (int64_t i = 0; i < weight.size(); ++i) errors.d.data()[i] -= weight.data()[i];
  const InputSpec& input = model.spec.layers[0].inputs[linear.input];
  LWQ_ASSIGN_OR_RETURN(const auto gram, model.evidence[0]->Triangle("second-moments", input));
  errors.h = OnHost(*model.device, gram->view());
  const double tokens = static_cast<double>(model.evidence[0]->tokens);
  double mean = 0;
  for (int64_t k = 0; k < cols; ++k) mean += errors.h.Row(k)[k] / tokens / cols;
  for (int64_t n = 0; n < rows; ++n) {
    const float* d = errors.d.Row(n);
    for (int64_t k = 0; k < cols; ++k) {
      errors.exact += (errors.h.Row(k)[k] / tokens + damping * mean) * d[k] * d[k];
      for (int64_t l = 0; l < k; ++l) {
        const double pair = 2 * errors.h.Row(k)[l] / tokens * d[k] * d[l];
        errors.exact += pair;
        errors.deviation += pair * pair;
      }
    }
  }
  errors.deviation = std::sqrt(errors.deviation);
  return errors;
}

// 8-bit floats say what they do to outputs in the unit in which grids say it, or their costs could
// not stand beside each other.
TEST(LayerQuantizerTest, EightBitFloatsReportTheErrorOfTheirOutputs) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::string directory = JoinPath(scratch.path(), "model");
  ASSERT_OK(WriteTinyModel({}, directory));
  LWQ_ASSERT_OK_AND_ASSIGN(const CalibratedModel model, Calibrate(directory));
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult result,
                           Quantize(model, "gptq", 0, Fp8RowFormat::Find()));
  ASSERT_EQ(result.linears.size(), 7u);
  for (const auto& made : result.linears) {
    const auto slot = model.spec.layers[0].FindLinear(made.module);
    ASSERT_TRUE(slot.has_value());
    const EncodedLinear* encoded = nullptr;
    for (const EncodedModule& module : result.encoded[made.unit][0]) {
      if (module.module == made.module) encoded = &module.linear;
    }
    ASSERT_NE(encoded, nullptr);
    LWQ_ASSERT_OK_AND_ASSIGN(
        const Errors errors,
        ErrorsOf(model, model.spec.layers[0].linears[*slot], *encoded, /*damping=*/0.01));
    EXPECT_GT(made.record.calibrated_error, 0) << made.module;
    EXPECT_NEAR(made.record.calibrated_error, errors.exact, 5 * errors.deviation) << made.module;
    // The deviation itself is small: the case tells the error from half of it.
    EXPECT_LT(5 * errors.deviation, errors.exact / 2) << made.module;
  }
  // Without inputs nothing is known of outputs.
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult nearest,
                           Quantize(model, "rtn", 0, Fp8RowFormat::Find()));
  for (const auto& made : nearest.linears) EXPECT_EQ(made.record.calibrated_error, 0);
}

}  // namespace
}  // namespace lwq::testing
