// The pieces of AWQ's search against their definitions, in double, by hand.
#include "worker/engine/quant/scale_search.h"

#include <cmath>

#include "gmock/gmock.h"
#include "tests/worker/engine/quant/quant_problem.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;

std::unique_ptr<DeviceMatrix> GramOf(Device* device, ConstMatrixView x) {
  auto gram = device->NewMatrix(x.cols, x.cols);
  EXPECT_OK(gram.status());
  EXPECT_OK(device->FillZero((*gram)->view()));
  EXPECT_OK(device->AccumulateGram(OnDevice(device, x)->view(), ComputeType::kF32,
                                   (*gram)->view()));
  return *std::move(gram);
}

// |X M^T|^2, as it is defined.
double Power(ConstMatrixView m, ConstMatrixView x) {
  double sum = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t r = 0; r < m.rows; ++r) {
      double y = 0;
      for (int64_t c = 0; c < m.cols; ++c) y += double{x.Row(t)[c]} * m.Row(r)[c];
      sum += y * y;
    }
  }
  return sum;
}

TEST(OutputPowerTest, IsTheSumOfSquaredOutputs) {
  const auto device = MakeDevice({.device = "cpu", .num_threads = 2});
  ASSERT_OK(device.status());
  const Matrix x = CorrelatedInputs(90, 40, 1), m = GaussianMatrix(700, 40, 2);
  auto power = OutputPower::Create(device->get(), GramOf(device->get(), x.view()));
  ASSERT_OK(power.status());
  const auto found = power->Of(m.view());
  ASSERT_OK(found.status());
  const double expected = Power(m.view(), x.view());
  EXPECT_NEAR(*found / expected, 1, 1e-5);
  double square = 0;
  for (int64_t t = 0; t < x.rows(); ++t) square += double{x.Row(t)[7]} * x.Row(t)[7];
  EXPECT_NEAR(power->diagonal()[7] / square, 1, 1e-5);
}

// s = a^p, over sqrt(max s * min s).
TEST(CandidateScalesTest, AreThePublishedOnes) {
  EXPECT_THAT(CandidateScales({1, 4, 16}, 0.5), ElementsAre(FloatEq(0.5), FloatEq(1), FloatEq(2)));
  EXPECT_THAT(CandidateScales({2, 2}, 0.75), ElementsAre(FloatEq(1), FloatEq(1)));
  // A dead channel has the smallest scale there is, 1e-4: over sqrt(4 * 1e-4) = .02.
  EXPECT_THAT(CandidateScales({0, 16}, 0.5), ElementsAre(FloatEq(0.005), FloatEq(200)));
  EXPECT_THAT(CandidateScales({INFINITY, 1}, 0.5), ElementsAre(FloatEq(1), FloatEq(1)));
}

TEST(ColumnWeightsTest, AreMeanSquaresOfTheDividedInputs) {
  // 4 / 1, 16 / 16, 1 / 1: mean 2.
  EXPECT_THAT(ColumnWeights({4, 16, 1}, {1, 4, 1}),
              ElementsAre(FloatEq(2.0001), FloatEq(0.5001), FloatEq(0.5001)));
  EXPECT_THAT(ColumnWeights({0, 0}, {}), ElementsAre(1, 1));
}

// What a code in the reference's rounding comes to: one symmetric grid per row without search.
double BruteLoss(ConstMatrixView w, ConstMatrixView x, const std::vector<float>& scales, int bits) {
  Matrix error(w.rows, w.cols);
  const double half = std::ldexp(1.0, bits - 1);
  for (int64_t r = 0; r < w.rows; ++r) {
    double low = 0, high = 0;
    for (int64_t c = 0; c < w.cols; ++c) {
      const double v = double{w.Row(r)[c]} * scales[static_cast<size_t>(c)];
      low = std::min(low, v);
      high = std::max(high, v);
    }
    const double scale =
        BF16ToFloat(FloatToBF16(static_cast<float>(std::max(high, -low) / (half - 0.5))));
    for (int64_t c = 0; c < w.cols; ++c) {
      const double s = scales[static_cast<size_t>(c)];
      const double code = std::clamp(std::nearbyint(w.Row(r)[c] * s / scale), -half, half - 1);
      error.Row(r)[c] = static_cast<float>(code * scale / s - w.Row(r)[c]);
    }
  }
  return Power(error.view(), x);
}

// Against an exhaustive search in double over the same twenty exponents.
TEST(FindScalesTest, FindsTheExponentThatLosesLeast) {
  const auto device = MakeDevice({.device = "cpu", .num_threads = 2});
  ASSERT_OK(device.status());
  const int64_t n = 48;
  Matrix x = CorrelatedInputs(300, n, 5);
  for (int64_t t = 0; t < x.rows(); ++t) x.Row(t)[3] *= 40;  // a channel that matters most
  const Matrix w = GaussianMatrix(30, n, 6, 0.05f);
  std::vector<float> magnitudes(static_cast<size_t>(n));
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t c = 0; c < n; ++c) {
      magnitudes[static_cast<size_t>(c)] += std::abs(x.Row(t)[c]) / static_cast<float>(x.rows());
    }
  }
  auto power = OutputPower::Create(device->get(), GramOf(device->get(), x.view()));
  ASSERT_OK(power.status());
  std::vector<ScaledReader> readers;
  readers.push_back({CopyOf(w.view()), &*power, [](int64_t column) { return column; }});
  const GridSpec grid{.bits = 3, .group_size = 0, .symmetric = true, .search = false};
  const auto found = FindScales(device->get(), magnitudes, readers, grid,
                                [](std::vector<float> scales) { return scales; });
  ASSERT_OK(found.status());
  double best = INFINITY, exponent = 0;
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> scales = i == 0 ? std::vector<float>(static_cast<size_t>(n), 1.0f)
                                             : CandidateScales(magnitudes, i / 20.0);
    const double loss = BruteLoss(w.view(), x.view(), scales, 3);
    if (i == 0) {
      EXPECT_NEAR(found->unscaled_loss / loss, 1, 0.02);
    }
    if (loss >= best) continue;
    best = loss;
    exponent = i / 20.0;
  }
  EXPECT_GT(exponent, 0.0);
  EXPECT_NEAR(found->loss / best, 1, 0.02);
  EXPECT_NEAR(found->exponent, exponent, 0.051) << "a neighbour may tie";
  EXPECT_LT(found->loss, 0.7 * found->unscaled_loss);
}

// Where nothing can be stored but ones, ones are what is left.
TEST(FindScalesTest, JudgesWhatCanBeStored) {
  const auto device = MakeDevice({.device = "cpu", .num_threads = 1});
  ASSERT_OK(device.status());
  const Matrix x = CorrelatedInputs(100, 32, 7), w = GaussianMatrix(8, 32, 8);
  auto power = OutputPower::Create(device->get(), GramOf(device->get(), x.view()));
  ASSERT_OK(power.status());
  std::vector<ScaledReader> readers;
  readers.push_back({CopyOf(w.view()), &*power, [](int64_t column) { return column; }});
  const auto found = FindScales(device->get(), std::vector<float>(32, 2.0f), readers,
                                {.bits = 4, .group_size = 32}, [](std::vector<float> scales) {
                                  return std::vector<float>(scales.size(), 1.0f);
                                });
  ASSERT_OK(found.status());
  EXPECT_EQ(found->exponent, 0);
  EXPECT_EQ(found->loss, found->unscaled_loss);
}

}  // namespace
}  // namespace lwq::testing
