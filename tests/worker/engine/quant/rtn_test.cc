// Round to nearest against what is known of it: published relative errors, exact extremes,
// idempotence, scales that every engine holds exactly, and a search that is as good as an
// exhaustive one.
#include <cmath>
#include <limits>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

using ::lwq::testing::CopyOf;
using ::lwq::testing::ElementsOf;
using ::lwq::testing::FailsWith;
using ::lwq::testing::GaussianMatrix;
using ::lwq::testing::OnDevice;
using ::lwq::testing::QuantizeWith;
using ::lwq::testing::ValuesOf;
using ::testing::HasSubstr;

QuantizedLinear Rtn(ConstMatrixView weight, const GridSpec& grid) {
  CpuDevice device(2);
  return std::move(QuantizeWith("rtn", &device, weight, nullptr, {grid}).front());
}

double GroupError(const float* w, int64_t n, float scale, int bits) {
  const double half = 1 << (bits - 1);
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) {
    const double q = std::min(std::max(std::nearbyint(double{w[k]} / scale), -half), half - 1);
    sum += (w[k] - q * scale) * (w[k] - q * scale);
  }
  return sum;
}

// Gaussian groups of 128, min-max with an integer zero: the relative squared error is a property of
// the method. The tolerance of 2 % is eight standard errors of 8,192 groups.
TEST(RtnTest, MinMaxAffineHasTheKnownRelativeError) {
  const Matrix weight = GaussianMatrix(1024, 1024, 1);
  for (const auto& [bits, expected] :
       std::vector<std::pair<int, double>>{{2, 0.2524}, {3, 0.0465}, {4, 0.01011}}) {
    const QuantizedLinear q =
        Rtn(weight.view(), {.bits = bits, .group_size = 128, .symmetric = false, .search = false});
    EXPECT_NEAR(q.record.relative_weight_error / expected, 1.0, 0.02) << bits << " bits";
  }
}

TEST(RtnTest, RecordedErrorIsThatOfTheCodes) {
  const Matrix weight = GaussianMatrix(5, 96, 2);
  const QuantizedLinear q = Rtn(weight.view(), {.bits = 3, .group_size = 32, .symmetric = false});
  const Matrix values = ValuesOf(q);
  double error = 0;
  double norm = 0;
  for (int64_t i = 0; i < weight.size(); ++i) {
    error += std::pow(double{weight.data()[i]} - values.data()[i], 2);
    norm += std::pow(double{weight.data()[i]}, 2);
  }
  EXPECT_NEAR(q.record.relative_weight_error, error / norm, 1e-5 * error / norm);
  EXPECT_EQ(q.record.method, "rtn");
}

// The smallest and largest weight of a group get the outermost codes, or, where the zero or the
// scale was rounded the other way, the one beside.
TEST(RtnTest, MinMaxAffineReachesBothEnds) {
  const Matrix weight = GaussianMatrix(64, 256, 3);
  const QuantizedLinear q =
      Rtn(weight.view(), {.bits = 4, .group_size = 128, .symmetric = false, .search = false});
  for (int64_t r = 0; r < weight.rows(); ++r) {
    for (int64_t g = 0; g < 2; ++g) {
      const uint8_t* codes = q.codes.data() + r * 256 + g * 128;
      const float* w = weight.Row(r) + g * 128;
      EXPECT_LE(codes[std::min_element(w, w + 128) - w], 1);
      EXPECT_GE(codes[std::max_element(w, w + 128) - w], 14);
    }
  }
}

TEST(RtnTest, RoundingRoundedWeightsChangesNothing) {
  const Matrix weight = GaussianMatrix(16, 256, 4, 0.02f);
  CpuDevice device(1);
  for (const bool symmetric : {true, false}) {
    const QuantizedLinear q =
        Rtn(weight.view(), {.bits = 3, .group_size = 64, .symmetric = symmetric});
    const Matrix values = ValuesOf(q);
    const auto scales = OnDevice(&device, q.scales.view());
    const auto zeros = OnDevice(&device, symmetric ? q.scales.view() : q.zeros.view());
    const auto on_device = OnDevice(&device, values.view());
    const auto again = *device.NewBuffer<uint8_t>(16, 256);
    ASSERT_OK(device.RoundToGrid(on_device->view(), q.grid, scales->view(), zeros->view(),
                                 again->view()));
    EXPECT_EQ(ElementsOf(device, again->view()), q.codes);
  }
}

TEST(RtnTest, ScalesSurviveF16AndBF16) {
  Matrix weight = GaussianMatrix(64, 256, 5);
  for (int64_t r = 0; r < 64; ++r) {  // from far below the smallest scale to above the largest
    const float size = std::ldexp(1.0f, static_cast<int>(r) - 30);
    for (int64_t k = 0; k < 256; ++k) weight.Row(r)[k] *= size;
  }
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool search : {true, false}) {
      const QuantizedLinear q =
          Rtn(weight.view(), {.bits = bits, .group_size = 32, .search = search});
      for (int64_t i = 0; i < q.scales.size(); ++i) {
        const float scale = q.scales.data()[i];
        EXPECT_EQ(F16ToFloat(FloatToF16(scale)), scale);
        EXPECT_EQ(BF16ToFloat(FloatToBF16(scale)), scale);
        EXPECT_GE(std::abs(scale), 0x1p-14f);
      }
    }
  }
}

// The symmetric grid of 2 bits is -2, -1, 0, 1 times the scale. Weights on its mirror image are
// exact with a negative scale and with no positive one.
TEST(RtnTest, LopsidedGridTurnsToTheSideOfTheWeights) {
  Matrix weight(1, 32);
  const float values[] = {1.0f, 0.5f, 0.0f, -0.5f};
  for (int64_t k = 0; k < 32; ++k) weight.data()[k] = values[k % 4];
  const QuantizedLinear q = Rtn(weight.view(), {.bits = 2, .group_size = 32});
  EXPECT_EQ(q.scales.data()[0], -0.5f);
  EXPECT_EQ(q.record.relative_weight_error, 0);
}

// Every scale of 8 significant bits is tried; the search may miss the best one, but by little.
// Where the bound comes from: neighbouring candidates of the fine sweep differ by at most 2.1 % in
// scale, so by half of that from the best, and the error is flat to first order there.
TEST(RtnTest, SearchIsNearlyExhaustive) {
  constexpr int64_t kGroup = 128;
  const Matrix weight = GaussianMatrix(64, kGroup, 6);
  for (const int bits : {2, 3, 4}) {
    const QuantizedLinear q = Rtn(weight.view(), {.bits = bits, .group_size = kGroup});
    double found = 0;
    double best = 0;
    for (int64_t r = 0; r < weight.rows(); ++r) {
      found += GroupError(weight.Row(r), kGroup, q.scales.Row(r)[0], bits);
      double least = std::numeric_limits<double>::infinity();
      for (uint32_t b = FloatToBF16(0x1p-5f); b < FloatToBF16(8.0f); ++b) {
        least = std::min(
            least, GroupError(weight.Row(r), kGroup, BF16ToFloat(static_cast<uint16_t>(b)), bits));
      }
      best += least;
    }
    EXPECT_LT(found, 1.005 * best) << bits << " bits";
  }
}

TEST(RtnTest, SearchIsNeverWorseThanMinMax) {
  const Matrix weight = GaussianMatrix(64, 256, 7);
  for (const bool symmetric : {true, false}) {
    for (const int bits : {2, 3, 4, 8}) {
      GridSpec grid{.bits = bits, .group_size = 64, .symmetric = symmetric};
      const double searched = Rtn(weight.view(), grid).record.relative_weight_error;
      grid.search = false;
      EXPECT_LE(searched, Rtn(weight.view(), grid).record.relative_weight_error * (1 + 1e-5));
    }
  }
}

TEST(RtnTest, ZerosAreExactAndOneGroupARowIsAllowed) {
  Matrix weight = GaussianMatrix(3, 200, 8);
  std::fill_n(weight.Row(1), 200, 0.0f);
  for (const bool symmetric : {true, false}) {
    const QuantizedLinear q =
        Rtn(weight.view(), {.bits = 4, .group_size = 0, .symmetric = symmetric});
    EXPECT_EQ(q.scales.cols(), 1);
    EXPECT_EQ(q.scales.Row(1)[0], 0x1p-14f);
    const Matrix values = ValuesOf(q);
    for (int64_t k = 0; k < 200; ++k) EXPECT_EQ(values.Row(1)[k], 0.0f);
  }
}

TEST(RtnTest, RefusesWhatItCannotQuantize) {
  CpuDevice device(1);
  const auto quantizer = (*FindQuantizer("rtn"))->make(OptionValues((*FindQuantizer("rtn"))->options));
  Matrix weight = GaussianMatrix(4, 64, 9);
  const auto on_device = OnDevice(&device, weight.view());
  EXPECT_THAT(
      quantizer->Quantize(&device, on_device->view(), nullptr, {GridSpec{.group_size = 48}}),
      FailsWith("GROUP_SIZE", HasSubstr("48 does not divide in_features 64")));
  EXPECT_THAT(quantizer->Quantize(&device, on_device->view(), nullptr,
                                  {GridSpec{.bits = 9, .group_size = 32}}),
              FailsWith("BITS", HasSubstr("9 bits")));
  weight.Row(2)[5] = std::numeric_limits<float>::quiet_NaN();
  const auto damaged = OnDevice(&device, weight.view());
  EXPECT_THAT(quantizer->Quantize(&device, damaged->view(), nullptr, {GridSpec{.group_size = 32}}),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("[2, 5]")));
}

TEST(QuantizerRegistryTest, NamesAreSortedAndUnknownOnesListed) {
  for (size_t i = 1; i < Quantizers().size(); ++i) {
    EXPECT_LT(Quantizers()[i - 1]->name, Quantizers()[i]->name);
  }
  EXPECT_THAT(FindQuantizer("magic"), FailsWith("METHOD_UNKNOWN", HasSubstr("gptq, rtn")));
}

}  // namespace
}  // namespace lwq
