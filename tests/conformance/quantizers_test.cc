// What holds for every quantizer in the registry on every device; a new one is covered without an
// edit here.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/tensor/half.h"

namespace lwq::testing {
namespace {

class QuantizersTest
    : public ::testing::TestWithParam<std::tuple<const QuantizerDef*, const TestDevice*>> {
 protected:
  const QuantizerDef& def() const { return *std::get<0>(GetParam()); }
  const TestDevice& test_device() const { return *std::get<1>(GetParam()); }
  std::vector<QuantizedLinear> Quantize(Device* device, ConstMatrixView weight,
                                        absl::Span<const GridSpec> grids) {
    const Matrix inputs = CorrelatedInputs(3 * weight.cols, weight.cols, 90);
    const auto statistics = StatisticsOf(device, inputs.view());
    return QuantizeWith(def().name, device, weight, statistics.get(), grids);
  }
};

std::vector<GridSpec> AllGrids(int64_t group_size) {
  std::vector<GridSpec> out;
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) out.push_back({bits, group_size, symmetric, true});
  }
  return out;
}

TEST_P(QuantizersTest, GivesCodesAndScalesThatTheFormatHolds) {
  const auto device = test_device().make(2);
  const Matrix weight = GaussianMatrix(6, 96, 91, 0.05f);
  const std::vector<GridSpec> grids = AllGrids(32);
  const auto quantized = Quantize(device.get(), weight.view(), grids);
  ASSERT_EQ(quantized.size(), grids.size());
  for (size_t i = 0; i < grids.size(); ++i) {
    const QuantizedLinear& q = quantized[i];
    EXPECT_EQ(q.grid.bits, grids[i].bits);
    EXPECT_EQ(q.out_features, 6);
    EXPECT_EQ(q.in_features, 96);
    ASSERT_EQ(q.codes.size(), 6 * 96);
    EXPECT_LT(*std::max_element(q.codes.begin(), q.codes.end()), 1 << q.grid.bits);
    EXPECT_EQ(q.scales.rows(), 6);
    EXPECT_EQ(q.scales.cols(), 3);
    EXPECT_EQ(q.zeros.size(), q.grid.symmetric ? 0 : 18);
    for (int64_t g = 0; g < q.scales.size(); ++g) {
      EXPECT_EQ(BF16ToFloat(FloatToBF16(q.scales.data()[g])), q.scales.data()[g]);
      EXPECT_EQ(F16ToFloat(FloatToF16(q.scales.data()[g])), q.scales.data()[g]);
    }
    for (int64_t g = 0; g < q.zeros.size(); ++g) {
      EXPECT_EQ(q.zeros.data()[g], std::nearbyint(q.zeros.data()[g]));
      EXPECT_GE(q.zeros.data()[g], 0);
      EXPECT_LT(q.zeros.data()[g], 1 << q.grid.bits);
    }
    EXPECT_FALSE(q.record.method.empty());
  }
}

// Each bit halves the step, so the error falls by about four; two and a half is asked for.
TEST_P(QuantizersTest, MoreBitsLeaveLessError) {
  const auto device = test_device().make(2);
  const Matrix weight = GaussianMatrix(16, 128, 92, 0.05f);
  std::vector<GridSpec> grids;
  for (int bits = 2; bits <= 8; ++bits) grids.push_back({.bits = bits, .group_size = 64});
  const auto quantized = Quantize(device.get(), weight.view(), grids);
  for (size_t i = 1; i < quantized.size(); ++i) {
    EXPECT_LT(2.5 * quantized[i].record.relative_weight_error,
              quantized[i - 1].record.relative_weight_error);
  }
}

TEST_P(QuantizersTest, TakesOneRowZerosAndAnOutlier) {
  const auto device = test_device().make(2);
  Matrix weight = GaussianMatrix(1, 64, 93, 0.05f);
  weight.Row(0)[9] = 30;
  for (const QuantizedLinear& q : Quantize(device.get(), weight.view(), AllGrids(0))) {
    EXPECT_TRUE(std::isfinite(q.record.relative_weight_error));
    EXPECT_LT(q.record.relative_weight_error, 0.5);
  }
  std::fill_n(weight.data(), weight.size(), 0.0f);
  for (const QuantizedLinear& q : Quantize(device.get(), weight.view(), AllGrids(64))) {
    const Matrix values = ValuesOf(q);
    EXPECT_TRUE(std::all_of(values.data(), values.data() + 64, [](float v) { return v == 0; }));
    EXPECT_EQ(q.record.relative_weight_error, 0);
  }
}

TEST_P(QuantizersTest, RefusesNaNAndGroupsThatDoNotDivide) {
  const auto device = test_device().make(1);
  const auto quantizer = def().make(OptionValues(def().options));
  const Matrix inputs = CorrelatedInputs(200, 64, 94);
  const auto statistics = StatisticsOf(device.get(), inputs.view());
  Matrix weight = GaussianMatrix(3, 64, 95);
  EXPECT_THAT(quantizer->Quantize(device.get(), OnDevice(device.get(), weight.view())->view(),
                                  statistics.get(), {GridSpec{.group_size = 40}}),
              FailsWith("GROUP_SIZE", ::testing::HasSubstr("40")));
  weight.Row(1)[2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(quantizer->Quantize(device.get(), OnDevice(device.get(), weight.view())->view(),
                                  statistics.get(), {GridSpec{.group_size = 32}}),
              FailsWith("NON_FINITE_WEIGHTS", ::testing::HasSubstr("[1, 2]")));
}

TEST_P(QuantizersTest, ThreadsDoNotChangeTheResult) {
  const Matrix weight = GaussianMatrix(37, 320, 96);
  std::vector<QuantizedLinear> first;
  for (const int threads : test_device().thread_counts) {
    const auto device = test_device().make(threads);
    auto quantized = Quantize(device.get(), weight.view(), AllGrids(64));
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_EQ(quantized[i].codes, first[i].codes);
      EXPECT_TRUE(std::equal(first[i].scales.data(),
                             first[i].scales.data() + first[i].scales.size(),
                             quantized[i].scales.data()));
    }
    if (first.empty()) first = std::move(quantized);
  }
}

// On the reference device the sums are in double: some values round the other way, but the error of
// the whole linear is the same within 2 %.
TEST_P(QuantizersTest, IsAsGoodAsOnTheReferenceDevice) {
  const auto device = test_device().make(2);
  ReferenceDevice reference;
  const Matrix weight = GaussianMatrix(16, 96, 97);
  const auto got = Quantize(device.get(), weight.view(), AllGrids(32));
  const auto want = Quantize(&reference, weight.view(), AllGrids(32));
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i].record.relative_weight_error / want[i].record.relative_weight_error, 1,
                0.02);
    if (want[i].record.calibrated_error > 0) {
      EXPECT_NEAR(got[i].record.calibrated_error / want[i].record.calibrated_error, 1, 0.02);
    }
  }
}

// Those that see one linear at a time; the others are for layers (layer_methods_test.cc).
std::vector<const QuantizerDef*> OfLinears() {
  std::vector<const QuantizerDef*> defs;
  for (const QuantizerDef* def : Quantizers()) {
    if (def->make != nullptr) defs.push_back(def);
  }
  return defs;
}

INSTANTIATE_TEST_SUITE_P(Registry, QuantizersTest,
                         ::testing::Combine(::testing::ValuesIn(OfLinears()),
                                            ::testing::ValuesIn(AllDevices())),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param)->name, "_",
                                               std::get<1>(info.param)->name);
                         });

}  // namespace
}  // namespace lwq::testing
