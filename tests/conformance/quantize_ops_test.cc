// The quantization operations of each device against the reference. Codes are compared one by one,
// since rounding is defined to the last bit; fits by their error, since sums may differ in the last
// place and near-equal scales may then change places.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

using ::lwq::testing::CopyOf;
using ::lwq::testing::CorrelatedInputs;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::GaussianMatrix;
using ::lwq::testing::OnDevice;
using ::testing::HasSubstr;

struct Grids {
  Matrix scales;
  Matrix zeros;
};

Grids Fit(Device* device, ConstMatrixView weight, const GridSpec& grid, const Matrix* importance) {
  const int64_t groups = grid.NumGroups(weight.cols);
  auto scales = *device->NewMatrix(weight.rows, groups);
  auto zeros = *device->NewMatrix(weight.rows, groups);
  EXPECT_OK(device->FillZero(zeros->view()));
  std::unique_ptr<DeviceMatrix> h;
  if (importance != nullptr) h = OnDevice(device, importance->view());
  EXPECT_OK(device->FitGrid(OnDevice(device, weight)->view(), grid,
                            h == nullptr ? nullptr : h->view().data, scales->view(),
                            zeros->view()));
  Grids out{Matrix(weight.rows, groups), Matrix(weight.rows, groups)};
  EXPECT_OK(device->Download(scales->view(), out.scales.view()));
  EXPECT_OK(device->Download(zeros->view(), out.zeros.view()));
  return out;
}

std::vector<uint8_t> Round(Device* device, ConstMatrixView weight, const GridSpec& grid,
                           const Grids& grids) {
  std::vector<uint8_t> codes(weight.rows * weight.cols);
  EXPECT_OK(device->RoundToGrid(OnDevice(device, weight)->view(), grid,
                                OnDevice(device, grids.scales.view())->view(),
                                OnDevice(device, grids.zeros.view())->view(), codes.data()));
  return codes;
}

Matrix Values(Device* device, const std::vector<uint8_t>& codes, const GridSpec& grid,
              const Grids& grids, int64_t cols) {
  const int64_t rows = grids.scales.rows();
  auto values = *device->NewMatrix(rows, cols);
  EXPECT_OK(device->Dequantize(codes.data(), grid, OnDevice(device, grids.scales.view())->view(),
                               OnDevice(device, grids.zeros.view())->view(), values->view()));
  Matrix out(rows, cols);
  EXPECT_OK(device->Download(values->view(), out.view()));
  return out;
}

double WeightedError(const Matrix& a, const Matrix& b, const Matrix& h) {
  double sum = 0;
  for (int64_t r = 0; r < a.rows(); ++r) {
    for (int64_t k = 0; k < a.cols(); ++k) {
      sum += h.Row(0)[k] * std::pow(double{a.Row(r)[k]} - b.Row(r)[k], 2);
    }
  }
  return sum;
}

struct GridCase {
  int64_t cols;
  GridSpec grid;
};

std::vector<GridCase> GridCases() {
  std::vector<GridCase> out;
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const bool search : {true, false}) {
        out.push_back({256, {bits, 128, symmetric, search}});
        out.push_back({96, {bits, 32, symmetric, search}});
        out.push_back({203, {bits, 0, symmetric, search}});  // a ragged end for any vector width
        out.push_back({15, {bits, 5, symmetric, search}});   // groups shorter than a vector
      }
    }
  }
  return out;
}

// Weights with a lopsided group, one of zeros, one tiny, one huge and one outlier.
Matrix HardWeights(int64_t cols) {
  Matrix weight = GaussianMatrix(7, cols, 77, 0.03f);
  for (int64_t k = 0; k < cols; ++k) weight.Row(1)[k] = std::fabs(weight.Row(1)[k]);
  std::fill_n(weight.Row(2), cols, 0.0f);
  for (int64_t k = 0; k < cols; ++k) weight.Row(3)[k] *= 1e-9f;
  for (int64_t k = 0; k < cols; ++k) weight.Row(4)[k] *= 1e9f;
  weight.Row(5)[cols / 2] = 4;
  return weight;
}

// Near-equal candidates may change places where the sums' last bits differ (relative 1e-6): the
// error of the fit stays within 1e-4 of the reference's.
TEST(QuantizeOpsTest, FitsAreAsGoodAsTheReferences) {
  CpuDevice cpu(2);
  ReferenceDevice reference;
  for (const auto& [cols, grid] : GridCases()) {
    const Matrix weight = HardWeights(cols);
    Matrix h = GaussianMatrix(1, cols, 78);
    for (int64_t k = 0; k < cols; ++k) h.Row(0)[k] = std::exp(h.Row(0)[k]);
    const Grids fit = Fit(&cpu, weight.view(), grid, &h);
    const Grids expected = Fit(&reference, weight.view(), grid, &h);
    for (int64_t r = 0; r < weight.rows(); ++r) {
      const auto error_with = [&](const Grids& grids) {
        Grids row{CopyOf(grids.scales.view().Rows(r, 1)), CopyOf(grids.zeros.view().Rows(r, 1))};
        const Matrix one = CopyOf(weight.view().Rows(r, 1));
        return WeightedError(
            one, Values(&reference, Round(&reference, one.view(), grid, row), grid, row, cols), h);
      };
      const double got = error_with(fit);
      const double least = error_with(expected);
      EXPECT_NEAR(got, least, 1e-4 * least)
          << "row " << r << ", " << grid.bits << " bits, groups of " << grid.group_size
          << ", symmetric " << grid.symmetric << ", search " << grid.search;
    }
  }
}

TEST(QuantizeOpsTest, CodesAndValuesEqualTheReferences) {
  CpuDevice cpu(2);
  ReferenceDevice reference;
  for (const auto& [cols, grid] : GridCases()) {
    const Matrix weight = HardWeights(cols);
    const Grids fit = Fit(&reference, weight.view(), grid, nullptr);
    const std::vector<uint8_t> expected = Round(&reference, weight.view(), grid, fit);
    ASSERT_EQ(Round(&cpu, weight.view(), grid, fit), expected) << grid.bits << " bits";
    const Matrix values = Values(&cpu, expected, grid, fit, cols);
    const Matrix want = Values(&reference, expected, grid, fit, cols);
    EXPECT_TRUE(std::equal(values.data(), values.data() + values.size(), want.data()));
  }
}

TEST(QuantizeOpsTest, TiesGoToEvenAndNaNToZero) {
  CpuDevice cpu(1);
  ReferenceDevice reference;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Matrix weight(1, 20);
  for (int64_t k = 0; k < 20; ++k) weight.Row(0)[k] = 0.25f * static_cast<float>(k - 10);
  weight.Row(0)[3] = weight.Row(0)[18] = nan;
  const GridSpec grid{.bits = 4, .group_size = 0};
  Grids grids{Matrix(1, 1), Matrix(1, 1)};
  grids.scales.Row(0)[0] = 0.5f;
  grids.zeros.Row(0)[0] = 0;
  for (Device* device : std::initializer_list<Device*>{&cpu, &reference}) {
    const std::vector<uint8_t> codes = Round(device, weight.view(), grid, grids);
    EXPECT_EQ(codes[9], 8) << "-0.5 steps";
    EXPECT_EQ(codes[11], 8) << "0.5 steps";
    EXPECT_EQ(codes[13], 10) << "1.5 steps";
    EXPECT_EQ(codes[15], 10) << "2.5 steps, in a vector's ragged end or not";
    EXPECT_EQ(codes[3], 8) << "not a number";
    EXPECT_EQ(codes[18], 8) << "not a number";
    const Grids fit = Fit(device, weight.view(), grid, nullptr);
    EXPECT_TRUE(std::isfinite(fit.scales.Row(0)[0]));
  }
}

// The factor's error against double. A backward stable factorisation of a matrix with condition
// number c in F32 has a relative error of a small multiple of c * 2^-24 in the factor of the
// inverse; damped at 1 % of the mean, c is below 1e4 here, and 1e-3 is what that allows.
TEST(QuantizeOpsTest, InverseCholeskyIsNearTheReference) {
  ReferenceDevice reference;
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
    CpuDevice cpu(3);
    const auto u = OnDevice(&cpu, h.view());
    const auto expected = OnDevice(&reference, h.view());
    ASSERT_OK(cpu.InverseCholesky(u->view()));
    ASSERT_OK(reference.InverseCholesky(expected->view()));
    double difference = 0;
    double norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const double want = expected->view().Row(i)[j];
        const double got = u->view().Row(i)[j];
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

TEST(QuantizeOpsTest, ReferenceFactorIsThatOfTheInverse) {
  ReferenceDevice reference;
  constexpr int64_t kSize = 40;
  const std::vector<double> h = DampedHessian(CorrelatedInputs(100, kSize, 80).view(), 0.01);
  Matrix lower(kSize, kSize);
  for (int64_t i = 0; i < kSize * kSize; ++i) lower.data()[i] = static_cast<float>(h[i]);
  const auto u = OnDevice(&reference, lower.view());
  ASSERT_OK(reference.InverseCholesky(u->view()));
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {  // (U^T U H)[i, j]
      double sum = 0;
      for (int64_t k = 0; k < kSize; ++k) {
        double inverse = 0;
        for (int64_t l = 0; l < kSize; ++l) {
          inverse += double{u->view().Row(l)[i]} * u->view().Row(l)[k];
        }
        sum += inverse * h[k * kSize + j];
      }
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-3);
    }
  }
}

TEST(QuantizeOpsTest, WhatIsNotPositiveDefiniteIsRefused) {
  CpuDevice cpu(2);
  ReferenceDevice reference;
  for (Device* device : std::initializer_list<Device*>{&cpu, &reference}) {
    for (const float bad : {-1.0f, 0.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
      Matrix h(300, 300);
      std::fill_n(h.data(), h.size(), 0.0f);
      for (int64_t i = 0; i < 300; ++i) h.Row(i)[i] = 1;
      h.Row(20)[20] = bad;
      EXPECT_THAT(device->InverseCholesky(OnDevice(device, h.view())->view()),
                  ::lwq::testing::FailsWith("NOT_POSITIVE_DEFINITE", HasSubstr("300")))
          << device->name() << " " << bad;
    }
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
  EXPECT_OK(device->GatherColumns(source->view(), order, w->view()));
  const auto u = OnDevice(device, factor);
  // Groups differ, so that a column that took another's grid would show.
  Matrix grids(rows, grid.NumGroups(cols));
  for (int64_t i = 0; i < grids.size(); ++i) grids.data()[i] = scale * (1 + i % 3);
  const auto scales = OnDevice(device, grids.view());
  for (int64_t i = 0; i < grids.size(); ++i) grids.data()[i] = zero + i % 2;
  const auto zeros = OnDevice(device, grids.view());
  const auto error = *device->NewMatrix(rows, cols);
  BlockResult out;
  out.codes.resize(rows * cols);
  out.loss.resize(rows);
  std::vector<double> loss(rows);
  for (int64_t begin = 0; begin < cols; begin += block) {
    const int64_t count = std::min(block, cols - begin);
    GptqColumns columns{.w = w->view().Cols(begin, count),
                        .u = u->view().Rows(begin, count).Cols(begin, count),
                        .grid = grid,
                        .scales = scales->view(),
                        .columns = absl::MakeConstSpan(order).subspan(begin, count),
                        .in_features = cols,
                        .codes = out.codes.data() + begin,
                        .error = error->view().Cols(begin, count)};
    if (!grid.symmetric) columns.zeros = zeros->view();
    EXPECT_OK(device->GptqBlock(columns, absl::MakeSpan(loss)));
    for (int64_t r = 0; r < rows; ++r) out.loss[r] += loss[r];
    const int64_t rest = cols - begin - count;
    if (rest == 0) break;
    EXPECT_OK(device->SubtractProduct(error->view().Cols(begin, count),
                                      u->view().Rows(begin, count).Cols(begin + count, rest),
                                      w->view().Cols(begin + count, rest)));
  }
  out.values = CopyOf(w->view());
  out.error = CopyOf(error->view());
  return out;
}

Matrix FactorFor(int64_t n) {
  ReferenceDevice reference;
  const std::vector<double> h = DampedHessian(CorrelatedInputs(3 * n, n, 81).view(), 0.01);
  Matrix lower(n, n);
  for (int64_t i = 0; i < n * n; ++i) lower.data()[i] = static_cast<float>(h[i]);
  const auto u = OnDevice(&reference, lower.view());
  EXPECT_OK(reference.InverseCholesky(u->view()));
  return CopyOf(u->view());
}

// Up to the first column where a value lies within rounding of a tie, everything agrees; on 21 rows
// of 96 such a value is rare, and a row that met one is left out, of which there may be few.
TEST(QuantizeOpsTest, GptqBlockAgreesWithTheReference) {
  CpuDevice cpu(2);
  ReferenceDevice reference;
  const Matrix weight = GaussianMatrix(21, 96, 82);
  const Matrix u = FactorFor(96);
  for (const bool symmetric : {true, false}) {
    const GridSpec grid{.bits = 3, .group_size = 32, .symmetric = symmetric};
    const BlockResult got = RunBlocks(&cpu, weight.view(), u.view(), grid, 0.625f, 3, 96);
    const BlockResult want = RunBlocks(&reference, weight.view(), u.view(), grid, 0.625f, 3, 96);
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

TEST(QuantizeOpsTest, GptqDoesNotDependOnTheBlockSize) {
  ReferenceDevice reference;
  CpuDevice cpu(2);
  const Matrix weight = GaussianMatrix(12, 160, 83);
  const Matrix u = FactorFor(160);
  const GridSpec grid{.group_size = 160};
  for (Device* device : std::initializer_list<Device*>{&cpu, &reference}) {
    const BlockResult whole = RunBlocks(device, weight.view(), u.view(), grid, 0.25f, 8, 160);
    for (const int64_t block : {32, 64, 128}) {
      const BlockResult blocked = RunBlocks(device, weight.view(), u.view(), grid, 0.25f, 8, block);
      int equal_rows = 0;
      for (int64_t r = 0; r < weight.rows(); ++r) {
        equal_rows += std::equal(whole.codes.begin() + r * 160, whole.codes.begin() + (r + 1) * 160,
                                 blocked.codes.begin() + r * 160);
      }
      EXPECT_GE(equal_rows, 11) << device->name() << ", blocks of " << block;
    }
  }
}

struct Refined {
  std::vector<uint8_t> codes;
  Matrix scales, change;
  std::vector<double> gain;
};

Refined RunRefinement(Device* device, const Matrix& weight, const Matrix& h, const GridSpec& grid,
                      const Grids& fit, std::vector<uint8_t> codes) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  const auto scales = OnDevice(device, fit.scales.view());
  const auto zeros = OnDevice(device, fit.zeros.view());
  const auto hessian = OnDevice(device, h.view());
  const auto error = *device->NewMatrix(rows, cols);  // Q, then Q - W
  EXPECT_OK(device->Dequantize(codes.data(), grid, scales->view(), zeros->view(), error->view()));
  EXPECT_OK(
      device->Subtract(error->view(), OnDevice(device, weight.view())->view(), error->view()));
  const auto residual = *device->NewMatrix(rows, cols);
  EXPECT_OK(device->FillZero(residual->view()));
  EXPECT_OK(device->SubtractProduct(error->view(), hessian->view(), residual->view()));
  Refined out{std::move(codes), Matrix(rows, fit.scales.cols()), Matrix(rows, cols),
              std::vector<double>(rows)};
  const auto change = *device->NewMatrix(rows, cols);
  RefinementBlock block{.residual = residual->view(),
                        .h = hessian->view(),
                        .grid = grid,
                        .scales = scales->view(),
                        .codes = out.codes.data(),
                        .code_stride = cols,
                        .change = change->view()};
  if (!grid.symmetric) block.zeros = zeros->view();
  EXPECT_OK(device->RefineBlock(block, absl::MakeSpan(out.gain)));
  EXPECT_OK(device->Download(scales->view(), out.scales.view()));
  EXPECT_OK(device->Download(change->view(), out.change.view()));
  return out;
}

// A step whose best place lies within rounding of a tie may go the other way; such a row is left
// out, of which there may be few. In the others all codes and scales are equal.
TEST(QuantizeOpsTest, RefineBlockAgreesWithTheReference) {
  CpuDevice cpu(2);
  ReferenceDevice reference;
  constexpr int64_t kRows = 53, kCols = 96;  // a whole tile and a part of one
  const Matrix weight = GaussianMatrix(kRows, kCols, 84, 0.05f);
  const std::vector<double> moments = DampedHessian(CorrelatedInputs(300, kCols, 85).view(), 0.01);
  Matrix h(kCols, kCols);
  for (int64_t i = 0; i < kCols * kCols; ++i) h.data()[i] = static_cast<float>(moments[i]);
  for (const GridSpec& grid : {GridSpec{.bits = 2, .group_size = 32}, GridSpec{.group_size = 96},
                               GridSpec{.bits = 3, .group_size = 48, .symmetric = false}}) {
    const Grids fit = Fit(&reference, weight.view(), grid, nullptr);
    const std::vector<uint8_t> codes = Round(&reference, weight.view(), grid, fit);
    const Refined got = RunRefinement(&cpu, weight, h, grid, fit, codes);
    const Refined want = RunRefinement(&reference, weight, h, grid, fit, codes);
    EXPECT_NE(want.codes, codes);
    const Matrix before = Values(&reference, codes, grid, fit, kCols);
    const Matrix after = Values(&reference, got.codes, grid,
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

}  // namespace
}  // namespace lwq
