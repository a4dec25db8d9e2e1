// Second-order information on every device against the reference and against double: factors,
// GPTQ's blocks and refinement. Codes are compared one by one.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "tests/conformance/grids_on_device.h"

namespace lwq::testing {
namespace {

class SecondOrderOps : public DeviceTest {
 protected:
  ReferenceDevice reference_;
};

// The factor's error against double. A backward stable factorisation of a matrix with condition
// number c in F32 has a relative error of a small multiple of c * 2^-24 in the factor of the
// inverse; damped at 1 % of the mean, c is below 1e4 here, and 1e-3 is what that allows.
TEST_P(SecondOrderOps, InverseCholeskyIsNearTheReference) {
  for (const int64_t n : {1, 2, 31, 255, 256, 257, 700}) {
    const Matrix x = CorrelatedInputs(2 * n + 8, n, 79);
    const std::vector<double> damped = DampedHessian(x.view(), 0.01);
    Matrix h(n, n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {  // nothing above the diagonal may be read
        h.Row(i)[j] = j <= i ? static_cast<float>(damped[i * n + j])
                             : std::numeric_limits<float>::quiet_NaN();
      }
    }
    const auto u = OnDevice(device_.get(), h.view());
    const auto expected = OnDevice(&reference_, h.view());
    ASSERT_OK(device_->InverseCholesky(u->view()));
    ASSERT_OK(reference_.InverseCholesky(expected->view()));
    const Matrix got_all = OnHost(*device_, u->view());
    const Matrix want_all = OnHost(reference_, expected->view());
    double difference = 0;
    double norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const double want = want_all.Row(i)[j];
        const double got = got_all.Row(i)[j];
        if (j < i) {
          ASSERT_EQ(got, 0.0);
        }
        difference += (got - want) * (got - want);
        norm += want * want;
      }
    }
    EXPECT_LT(std::sqrt(difference / norm), 1e-3) << "n = " << n;
  }
}

TEST_P(SecondOrderOps, TheFactorIsThatOfTheInverse) {
  constexpr int64_t kSize = 40;
  const std::vector<double> h = DampedHessian(CorrelatedInputs(100, kSize, 80).view(), 0.01);
  Matrix lower(kSize, kSize);
  for (int64_t i = 0; i < kSize * kSize; ++i) lower.data()[i] = static_cast<float>(h[i]);
  const auto on_device = OnDevice(device_.get(), lower.view());
  ASSERT_OK(device_->InverseCholesky(on_device->view()));
  const Matrix u = OnHost(*device_, on_device->view());
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {  // (U^T U H)[i, j]
      double sum = 0;
      for (int64_t k = 0; k < kSize; ++k) {
        double inverse = 0;
        for (int64_t l = 0; l < kSize; ++l) {
          inverse += double{u.Row(l)[i]} * u.Row(l)[k];
        }
        sum += inverse * h[k * kSize + j];
      }
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-3);
    }
  }
}

TEST_P(SecondOrderOps, WhatIsNotPositiveDefiniteIsRefused) {
  for (const float bad : {-1.0f, 0.0f, std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    Matrix h(300, 300);
    std::fill_n(h.data(), h.size(), 0.0f);
    for (int64_t i = 0; i < 300; ++i) h.Row(i)[i] = 1;
    h.Row(20)[20] = bad;
    EXPECT_THAT(device_->InverseCholesky(OnDevice(device_.get(), h.view())->view()),
                FailsWith("NOT_POSITIVE_DEFINITE", ::testing::HasSubstr("300")))
        << bad;
  }
}

struct BlockResult {
  Matrix values;
  Matrix error;
  std::vector<uint8_t> codes;
  std::vector<double> loss;  // summed over blocks
};

// GPTQ over the whole of `weight` in blocks of `block`, the columns in reverse; one grid a row.
BlockResult RunBlocks(Device* device, ConstMatrixView weight, ConstMatrixView factor,
                      const GridSpec& grid, float scale, float zero, int64_t block) {
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<int32_t> order(cols);
  for (int64_t j = 0; j < cols; ++j) order[j] = static_cast<int32_t>(cols - 1 - j);
  const auto source = OnDevice(device, weight);
  const auto w = *device->NewMatrix(rows, cols);
  const auto columns_on_device = VectorOn(*device, order);
  EXPECT_OK(device->GatherColumns(source->view(), columns_on_device->span(), w->view()));
  const auto u = OnDevice(device, factor);
  // Groups differ, so that a column that took another's grid would show.
  Matrix grids(rows, grid.NumGroups(cols));
  for (int64_t i = 0; i < grids.size(); ++i) grids.data()[i] = scale * (1 + i % 3);
  const auto scales = OnDevice(device, grids.view());
  for (int64_t i = 0; i < grids.size(); ++i) grids.data()[i] = zero + i % 2;
  const auto zeros = OnDevice(device, grids.view());
  const auto error = *device->NewMatrix(rows, cols);
  const auto codes = *device->NewBuffer<uint8_t>(rows, cols);
  const auto loss = VectorOn(*device, std::vector<double>(rows));
  for (int64_t begin = 0; begin < cols; begin += block) {
    const int64_t count = std::min(block, cols - begin);
    GptqColumns columns{.w = w->view().Cols(begin, count),
                        .u = u->view().Rows(begin, count).Cols(begin, count),
                        .grid = grid,
                        .scales = scales->view(),
                        .columns = columns_on_device->span().Part(begin, count),
                        .in_features = cols,
                        .codes = codes->view().Cols(begin, count),
                        .error = error->view().Cols(begin, count),
                        .loss = loss->span()};
    if (!grid.symmetric) columns.zeros = zeros->view();
    EXPECT_OK(device->GptqBlock(columns));
    const int64_t rest = cols - begin - count;
    if (rest == 0) break;
    EXPECT_OK(device->SubtractProduct(error->view().Cols(begin, count),
                                      u->view().Rows(begin, count).Cols(begin + count, rest),
                                      w->view().Cols(begin + count, rest)));
  }
  return {OnHost(*device, w->view()), OnHost(*device, error->view()),
          ElementsOf(*device, codes->view()), ElementsOf(*device, loss->span())};
}

Matrix FactorFor(int64_t n) {
  ReferenceDevice reference;
  const std::vector<double> h = DampedHessian(CorrelatedInputs(3 * n, n, 81).view(), 0.01);
  Matrix lower(n, n);
  for (int64_t i = 0; i < n * n; ++i) lower.data()[i] = static_cast<float>(h[i]);
  const auto u = OnDevice(&reference, lower.view());
  EXPECT_OK(reference.InverseCholesky(u->view()));
  return OnHost(reference, u->view());
}

// Up to the first column where a value lies within rounding of a tie, everything agrees; on 21 rows
// of 96 such a value is rare, and a row that met one is left out, of which there may be few.
TEST_P(SecondOrderOps, GptqBlockAgreesWithTheReference) {
  const Matrix weight = GaussianMatrix(21, 96, 82);
  const Matrix u = FactorFor(96);
  for (const bool symmetric : {true, false}) {
    const GridSpec grid{.bits = 3, .group_size = 32, .symmetric = symmetric};
    const BlockResult got = RunBlocks(device_.get(), weight.view(), u.view(), grid, 0.625f, 3, 96);
    const BlockResult want = RunBlocks(&reference_, weight.view(), u.view(), grid, 0.625f, 3, 96);
    int equal_rows = 0;
    for (int64_t r = 0; r < weight.rows(); ++r) {
      if (!std::equal(got.codes.begin() + r * 96, got.codes.begin() + (r + 1) * 96,
                      want.codes.begin() + r * 96)) {
        continue;
      }
      ++equal_rows;
      for (int64_t k = 0; k < 96; ++k) {
        EXPECT_EQ(got.values.Row(r)[k], want.values.Row(r)[k]);
        EXPECT_NEAR(got.error.Row(r)[k], want.error.Row(r)[k],
                    1e-4 * (1 + std::fabs(want.error.Row(r)[k])));
      }
      EXPECT_NEAR(got.loss[r], want.loss[r], 1e-5 * want.loss[r]);
    }
    EXPECT_GE(equal_rows, 19);
  }
}

TEST_P(SecondOrderOps, GptqDoesNotDependOnTheBlockSize) {
  const Matrix weight = GaussianMatrix(12, 160, 83);
  const Matrix u = FactorFor(160);
  const GridSpec grid{.group_size = 160};
  {
    Device* device = device_.get();
    const BlockResult whole = RunBlocks(device, weight.view(), u.view(), grid, 0.25f, 8, 160);
    for (const int64_t block : {32, 64, 128}) {
      const BlockResult blocked = RunBlocks(device, weight.view(), u.view(), grid, 0.25f, 8, block);
      int equal_rows = 0;
      for (int64_t r = 0; r < weight.rows(); ++r) {
        equal_rows += std::equal(whole.codes.begin() + r * 160, whole.codes.begin() + (r + 1) * 160,
                                 blocked.codes.begin() + r * 160);
      }
      EXPECT_GE(equal_rows, 11) << "blocks of " << block;
    }
  }
}

struct Refined {
  std::vector<uint8_t> codes;
  Matrix scales, change;
  std::vector<double> gain;
};

Refined RunRefinement(Device* device, const Matrix& weight, const Matrix& h, const GridSpec& grid,
                      const Grids& fit, const std::vector<uint8_t>& codes) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  const auto scales = OnDevice(device, fit.scales.view());
  const auto zeros = OnDevice(device, fit.zeros.view());
  const auto hessian = OnDevice(device, h.view());
  const auto error = *device->NewMatrix(rows, cols);  // Q, then Q - W
  const auto codes_on_device = CodesOn(*device, codes, cols);
  EXPECT_OK(device->Dequantize(codes_on_device->view(), grid, scales->view(), zeros->view(),
                               error->view()));
  EXPECT_OK(
      device->Subtract(error->view(), OnDevice(device, weight.view())->view(), error->view()));
  const auto residual = *device->NewMatrix(rows, cols);
  EXPECT_OK(device->FillZero(residual->view()));
  EXPECT_OK(device->SubtractProduct(error->view(), hessian->view(), residual->view()));
  // What was gained before stays in the sum.
  const auto gain = VectorOn(*device, std::vector<double>(rows, 0.25));
  const auto change = *device->NewMatrix(rows, cols);
  RefinementBlock block{.residual = residual->view(),
                        .h = hessian->view(),
                        .grid = grid,
                        .scales = scales->view(),
                        .codes = codes_on_device->view(),
                        .change = change->view(),
                        .gain = gain->span()};
  if (!grid.symmetric) block.zeros = zeros->view();
  EXPECT_OK(device->RefineBlock(block));
  Refined out{ElementsOf(*device, codes_on_device->view()), OnHost(*device, scales->view()),
              OnHost(*device, change->view()), ElementsOf(*device, gain->span())};
  for (double& g : out.gain) g -= 0.25;
  return out;
}

// A step whose best place lies within rounding of a tie may go the other way; such a row is left
// out, of which there may be few. In the others all codes and scales are equal.
TEST_P(SecondOrderOps, RefineBlockAgreesWithTheReference) {
  constexpr int64_t kRows = 53, kCols = 96;  // a whole tile and a part of one
  const Matrix weight = GaussianMatrix(kRows, kCols, 84, 0.05f);
  const std::vector<double> moments = DampedHessian(CorrelatedInputs(300, kCols, 85).view(), 0.01);
  Matrix h(kCols, kCols);
  for (int64_t i = 0; i < kCols * kCols; ++i) h.data()[i] = static_cast<float>(moments[i]);
  for (const GridSpec& grid : {GridSpec{.bits = 2, .group_size = 32}, GridSpec{.group_size = 96},
                               GridSpec{.bits = 3, .group_size = 48, .symmetric = false}}) {
    const Grids fit = Fit(&reference_, weight.view(), grid, nullptr);
    const std::vector<uint8_t> codes = Round(&reference_, weight.view(), grid, fit);
    const Refined got = RunRefinement(device_.get(), weight, h, grid, fit, codes);
    const Refined want = RunRefinement(&reference_, weight, h, grid, fit, codes);
    EXPECT_NE(want.codes, codes);
    const Matrix before = Values(&reference_, codes, grid, fit, kCols);
    const Matrix after = Values(&reference_, got.codes, grid,
                                {CopyOf(got.scales.view()), CopyOf(fit.zeros.view())}, kCols);
    int equal_rows = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t k = 0; k < kCols; ++k) {
        EXPECT_NEAR(got.change.Row(r)[k], after.Row(r)[k] - before.Row(r)[k], 1e-6);
      }
      if (!std::equal(got.codes.begin() + r * kCols, got.codes.begin() + (r + 1) * kCols,
                      want.codes.begin() + r * kCols) ||
          !std::equal(got.scales.Row(r), got.scales.Row(r) + got.scales.cols(),
                      want.scales.Row(r))) {
        continue;
      }
      ++equal_rows;
      EXPECT_NEAR(got.gain[r], want.gain[r], 1e-3 * want.gain[r]);
    }
    EXPECT_GE(equal_rows, 48) << grid.bits << " bits, groups of " << grid.group_size;
  }
}

TEST_P(SecondOrderOps, LowerTrianglesAreScaledMirroredAndPermuted) {
  for (const int64_t n : {1, 7, 130, 257}) {
    Matrix a = GaussianMatrix(n, n, 86);
    const Matrix before = CopyOf(a.view());
    const auto on_device = OnDevice(device_.get(), a.view());
    ASSERT_OK(device_->ScaleAndMirror(0.3f, on_device->view()));
    const Matrix whole = OnHost(*device_, on_device->view());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_EQ(whole.Row(i)[j], 0.3f * before.Row(std::max(i, j))[std::min(i, j)]);
      }
    }
    std::vector<int32_t> order(n);
    for (int64_t j = 0; j < n; ++j) order[j] = static_cast<int32_t>((j * 3 + 1) % n);
    const auto out = *device_->NewMatrix(n, n);
    ASSERT_OK(
        device_->PermuteLower(on_device->view(), VectorOn(*device_, order)->span(), out->view()));
    const Matrix permuted = OnHost(*device_, out->view());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_EQ(permuted.Row(i)[j], j <= i ? whole.Row(order[i])[order[j]] : 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SecondOrderOps, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
