// GPTQ against its definition: the identity between its loss and the calibrated error, an
// independent column-by-column implementation in double, and the properties that hold for any
// correct one. Where GPTQ itself is judged, the refinement after it is off (refinement_test.cc).
#include <cmath>
#include <limits>

#include "tests/worker/engine/quant/quant_problem.h"
#include "tests/worker/engine/quant/textbook_gptq.h"
#include "worker/engine/device/cpu/cpu_device.h"

namespace lwq {
namespace {

using ::lwq::testing::CalibratedError;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::FailsWith;
using ::lwq::testing::GaussianMatrix;
using ::lwq::testing::InverseFactor;
using ::lwq::testing::OnDevice;
using ::lwq::testing::OnHost;
using ::lwq::testing::Problem;
using ::lwq::testing::QuantizeWith;
using ::lwq::testing::RandomProblem;
using ::lwq::testing::StatisticsOf;
using ::lwq::testing::TextbookGptq;
using ::lwq::testing::ValuesOf;
using ::lwq::testing::VectorOn;
using ::testing::HasSubstr;

constexpr double kDamping = 0.01;

// The loss is summed from F32 values of errors whose relative rounding error is some 1e-6; the
// identity itself is exact.
TEST(GptqTest, LossIsTheCalibratedError) {
  CpuDevice device(2);
  for (const bool act_order : {true, false}) {
    const Problem p = RandomProblem(24, 192, 1);
    const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, act_order, false});
    const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
    for (const GridSpec& grid :
         {GridSpec{.bits = 2, .group_size = 64}, GridSpec{.bits = 4, .group_size = 0},
          GridSpec{.bits = 3, .group_size = 96, .symmetric = false}}) {
      const auto q = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), {grid});
      const double error = CalibratedError(p.weight.view(), ValuesOf(q[0]).view(), h);
      EXPECT_NEAR(q[0].record.calibrated_error / error, 1.0, 1e-4)
          << grid.bits << " bits, act order " << act_order;
      EXPECT_EQ(q[0].record.method, "gptq");
    }
  }
}

// Three large blocks: the errors of the second reach the third.
TEST(GptqTest, LossIsTheCalibratedErrorAcrossLargeBlocks) {
  constexpr int64_t kCols = 1152;
  CpuDevice device(2);
  const Matrix weight = GaussianMatrix(4, kCols, 2, 0.02f),
               inputs = ::lwq::testing::CorrelatedInputs(96, kCols, 3);
  const auto statistics = StatisticsOf(&device, inputs.view(), {kDamping, true, false});
  const auto q = QuantizeWith("gptq", &device, weight.view(), statistics.get(),
                              {GridSpec{.bits = 3, .group_size = 128}});
  const double error =
      CalibratedError(weight.view(), ValuesOf(q[0]).view(), DampedHessian(inputs.view(), kDamping));
  EXPECT_NEAR(q[0].record.calibrated_error / error, 1.0, 1e-3);
}

void ExpectNearTextbook(const Problem& p, const std::vector<GridSpec>& grids) {
  CpuDevice device(2);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, true, false});
  const auto quantized = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), grids);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const TextbookGptq textbook(h, p.weight.cols());
  for (const QuantizedLinear& q : quantized) {
    const double expected =
        CalibratedError(p.weight.view(), textbook.Quantize(p.weight.view(), q).view(), h);
    const double got = CalibratedError(p.weight.view(), ValuesOf(q).view(), h);
    EXPECT_NEAR(got / expected, 1.0, 0.01)
        << q.grid.bits << " bits, groups of " << q.grid.group_size;
  }
}

// A value that rounds the other way in F32 changes all that follow, to another solution as good:
// over a linear the errors agree to well under the 1 % allowed.
TEST(GptqTest, AgreesWithTheTextbookOnRandomProblems) {
  for (const uint64_t seed : {11, 12}) {
    std::vector<GridSpec> grids;
    for (const int bits : {2, 3, 4, 8}) {
      grids.push_back({.bits = bits, .group_size = 64});
      grids.push_back({.bits = bits, .group_size = 128, .symmetric = false});
    }
    ExpectNearTextbook(RandomProblem(48, 256, seed), grids);
  }
  // More columns than are updated together.
  ExpectNearTextbook(RandomProblem(24, 576, 13), {{.bits = 3, .group_size = 96}});
}

// Without act-order a group's grid fits the weights as they are when its turn comes, wherever it
// lies: groups of 96 begin at 480, before a block of 512 columns ends.
TEST(GptqTest, GridsFitTheWeightsAsUpdatedSoFar) {
  constexpr int64_t kRows = 16, kCols = 576, kGroup = 96;
  CpuDevice device(2);
  const Problem p = RandomProblem(kRows, kCols, 14);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, false, false});
  const GridSpec grid{.bits = 3, .group_size = kGroup};
  const auto q = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), {grid});
  const Matrix values = ValuesOf(q[0]);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const std::vector<double> u = InverseFactor(h, kCols);
  std::vector<float> importance;  // the diagonal, damped
  for (int64_t k = 0; k < kCols; ++k) importance.push_back(static_cast<float>(h[k * kCols + k]));
  const auto weights = VectorOn(device, importance);
  std::vector<double> w(p.weight.data(), p.weight.data() + p.weight.size());
  for (int64_t first = 0; first < kCols; first += kGroup) {
    Matrix now(kRows, kGroup);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t j = 0; j < kGroup; ++j) {
        now.Row(r)[j] = static_cast<float>(w[r * kCols + first + j]);
      }
    }
    const auto fitted = *device.NewMatrix(kRows, 1);
    ASSERT_OK(device.FitGrid(OnDevice(&device, now.view())->view(), grid,
                             weights->span().Part(first, kGroup), fitted->view(), {}));
    const Matrix scales = OnHost(device, fitted->view());
    int equal = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      equal += scales.Row(r)[0] == q[0].scales.Row(r)[first / kGroup];
      for (int64_t j = first; j < first + kGroup; ++j) {
        const double error = (w[r * kCols + j] - values.Row(r)[j]) / u[j * kCols + j];
        for (int64_t k = j; k < kCols; ++k) w[r * kCols + k] -= error * u[j * kCols + k];
      }
    }
    // Sums in F32 may tip the choice between two scales that fit alike.
    EXPECT_GE(equal, 13) << "group at column " << first;
  }
}

// Rounding a product's inputs to BF16 moves a column by hundredths of a step; only codes near a tie
// change, where both are as good. What the record says of the error stays true.
TEST(GptqTest, LargeProductsInBF16CostNextToNothing) {
  CpuDevice device(2);
  const Problem p = RandomProblem(32, 768, 15);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  for (const bool refinement : {false, true}) {
    std::vector<double> errors;
    for (const ComputeType compute : {ComputeType::kF32, ComputeType::kBF16}) {
      const auto statistics =
          StatisticsOf(&device, p.inputs.view(),
                       {.damping = kDamping, .refinement = refinement, .compute = compute});
      const auto q = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(),
                                  {GridSpec{.bits = 3, .group_size = 128}});
      errors.push_back(CalibratedError(p.weight.view(), ValuesOf(q[0]).view(), h));
      EXPECT_NEAR(q[0].record.calibrated_error / errors.back(), 1, 0.005)
          << NameOf(compute) << ", refinement " << refinement;
    }
    EXPECT_NE(errors[0], errors[1]) << "BF16 did not round";
    EXPECT_NEAR(errors[1] / errors[0], 1, 0.005) << "refinement " << refinement;
  }
}

TEST(GptqTest, ErrorIsBelowRoundToNearest) {
  CpuDevice device(2);
  for (uint64_t seed = 0; seed < 25; ++seed) {
    const Problem p = RandomProblem(8, 128, 1000 + 7 * seed);
    const std::vector<double> h = DampedHessian(p.inputs.view(), 0);
    for (const bool act_order : {true, false}) {
      const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, act_order});
      std::vector<GridSpec> grids;
      for (const int bits : {2, 3, 4, 8}) grids.push_back({.bits = bits, .group_size = 32});
      const auto gptq = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), grids);
      const auto rtn = QuantizeWith("rtn", &device, p.weight.view(), nullptr, grids);
      for (size_t i = 0; i < grids.size(); ++i) {
        EXPECT_LT(CalibratedError(p.weight.view(), ValuesOf(gptq[i]).view(), h),
                  CalibratedError(p.weight.view(), ValuesOf(rtn[i]).view(), h))
            << "seed " << seed << ", " << grids[i].bits << " bits, act order " << act_order;
      }
    }
  }
}

// With H = c I no error is pushed anywhere. c (1 + damping) is a power of two, so that even the
// search's sums are those of round to nearest, scaled exactly.
TEST(GptqTest, IsRoundToNearestForUncorrelatedInputs) {
  CpuDevice device(1);
  const Matrix weight = GaussianMatrix(32, 256, 21);
  for (const bool act_order : {true, false}) {
    Matrix gram(256, 256);
    std::fill_n(gram.data(), gram.size(), 0.0f);
    for (int64_t k = 0; k < 256; ++k) gram.Row(k)[k] = 3.0f;
    const auto statistics = *InputStatistics::Create(&device, OnDevice(&device, gram.view()), 3,
                                                     {1.0, act_order, false});
    for (const bool search : {true, false}) {
      const GridSpec grid{.bits = 3, .group_size = 64, .search = search};
      const auto gptq = QuantizeWith("gptq", &device, weight.view(), statistics.get(), {grid});
      const auto rtn = QuantizeWith("rtn", &device, weight.view(), nullptr, {grid});
      EXPECT_EQ(gptq[0].codes, rtn[0].codes);
    }
  }
}

// Reordering the inputs of a linear reorders its codes and changes nothing else: with act order the
// columns are processed in the same sequence. One group a row, since groups follow positions;
// min-max, whose extremes do not depend on the order of summation.
TEST(GptqTest, CodesFollowAPermutationOfTheInputs) {
  CpuDevice device(2);
  const Problem p = RandomProblem(16, 160, 31);
  Matrix weight(16, 160);
  Matrix inputs(p.inputs.rows(), 160);
  const auto from = [](int64_t k) { return (k * 37 + 11) % 160; };
  for (int64_t k = 0; k < 160; ++k) {
    for (int64_t r = 0; r < 16; ++r) weight.Row(r)[k] = p.weight.Row(r)[from(k)];
    for (int64_t t = 0; t < inputs.rows(); ++t) inputs.Row(t)[k] = p.inputs.Row(t)[from(k)];
  }
  const GridSpec grid{.bits = 4, .group_size = 0, .search = false};
  const InputStatistics::Options once{.refinement = false};
  const auto plain = QuantizeWith("gptq", &device, p.weight.view(),
                                  StatisticsOf(&device, p.inputs.view(), once).get(), {grid});
  const auto permuted = QuantizeWith("gptq", &device, weight.view(),
                                     StatisticsOf(&device, inputs.view(), once).get(), {grid});
  int64_t different = 0;
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t k = 0; k < 160; ++k) {
      different += permuted[0].codes[r * 160 + k] != plain[0].codes[r * 160 + from(k)];
    }
  }
  EXPECT_EQ(different, 0);
}

TEST(GptqTest, OneFactorServesAllWidths) {
  CpuDevice device(2);
  const Problem p = RandomProblem(16, 128, 41);
  const auto statistics = StatisticsOf(&device, p.inputs.view());
  std::vector<GridSpec> grids;
  for (const int bits : {2, 3, 4, 8}) grids.push_back({.bits = bits, .group_size = 32});
  const auto together = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), grids);
  ASSERT_EQ(together.size(), 4);
  for (size_t i = 0; i < grids.size(); ++i) {
    const auto alone = QuantizeWith("gptq", &device, p.weight.view(), statistics.get(), {grids[i]});
    EXPECT_EQ(alone[0].codes, together[i].codes);
    EXPECT_EQ(together[i].grid.bits, grids[i].bits);
  }
}

TEST(GptqTest, ThreadsDoNotChangeTheResult) {
  const Problem p = RandomProblem(70, 600, 51);  // factors of several panels, ragged tiles
  std::vector<uint8_t> codes;
  for (const int threads : {1, 2, 5}) {
    CpuDevice device(threads);
    const auto q =
        QuantizeWith("gptq", &device, p.weight.view(), StatisticsOf(&device, p.inputs.view()).get(),
                     {GridSpec{.bits = 3, .group_size = 40}});
    if (codes.empty()) codes = q[0].codes;
    EXPECT_EQ(q[0].codes, codes) << threads << " threads";
  }
}

TEST(GptqTest, RefusesDamagedWeightsAndMissingCalibration) {
  CpuDevice device(1);
  Problem p = RandomProblem(4, 64, 61);
  const auto statistics = StatisticsOf(&device, p.inputs.view());
  const auto quantizer = (*FindQuantizer("gptq"))->make(OptionValues((*FindQuantizer("gptq"))->options));
  const GridSpec grid{.group_size = 32};
  const auto good = OnDevice(&device, p.weight.view());
  EXPECT_THAT(quantizer->Quantize(&device, good->view(), nullptr, {grid}),
              FailsWith("CALIBRATION_MISSING", HasSubstr("second moments")));
  p.weight.Row(3)[63] = std::numeric_limits<float>::infinity();
  const auto bad = OnDevice(&device, p.weight.view());
  EXPECT_THAT(quantizer->Quantize(&device, bad->view(), statistics.get(), {grid}),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("[3, 63]")));
}

}  // namespace
}  // namespace lwq
