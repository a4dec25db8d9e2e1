// The quantization operations of each device against the reference. Codes are compared one by one,
// since rounding is defined to the last bit; fits by their error, since sums may differ in the last
// place and near-equal scales may then change places.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>

#include "tests/conformance/grids_on_device.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq::testing {
namespace {

class QuantizeOps : public DeviceTest {
 protected:
  ReferenceDevice reference_;
};

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
TEST_P(QuantizeOps, FitsAreAsGoodAsTheReferences) {
  for (const auto& [cols, grid] : GridCases()) {
    const Matrix weight = HardWeights(cols);
    Matrix h = GaussianMatrix(1, cols, 78);
    for (int64_t k = 0; k < cols; ++k) h.Row(0)[k] = std::exp(h.Row(0)[k]);
    const Grids fit = Fit(device_.get(), weight.view(), grid, &h);
    const Grids expected = Fit(&reference_, weight.view(), grid, &h);
    for (int64_t r = 0; r < weight.rows(); ++r) {
      const auto error_with = [&](const Grids& grids) {
        Grids row{CopyOf(grids.scales.view().Rows(r, 1)), CopyOf(grids.zeros.view().Rows(r, 1))};
        const Matrix one = CopyOf(weight.view().Rows(r, 1));
        return WeightedError(
            one, Values(&reference_, Round(&reference_, one.view(), grid, row), grid, row, cols),
            h);
      };
      const double got = error_with(fit);
      const double least = error_with(expected);
      EXPECT_NEAR(got, least, 1e-4 * least)
          << "row " << r << ", " << grid.bits << " bits, groups of " << grid.group_size
          << ", symmetric " << grid.symmetric << ", search " << grid.search;
    }
  }
}

TEST_P(QuantizeOps, CodesAndValuesEqualTheReferences) {
  for (const auto& [cols, grid] : GridCases()) {
    const Matrix weight = HardWeights(cols);
    const Grids fit = Fit(&reference_, weight.view(), grid, nullptr);
    const std::vector<uint8_t> expected = Round(&reference_, weight.view(), grid, fit);
    ASSERT_EQ(Round(device_.get(), weight.view(), grid, fit), expected) << grid.bits << " bits";
    const Matrix values = Values(device_.get(), expected, grid, fit, cols);
    const Matrix want = Values(&reference_, expected, grid, fit, cols);
    EXPECT_TRUE(std::equal(values.data(), values.data() + values.size(), want.data()));
  }
}

// What tensor/pack_bits.h packed, whose own test has streams worked out by hand; with an end of row
// inside of a word, and rows that lie apart.
TEST_P(QuantizeOps, UnpackedCodesAreThoseThatWerePacked) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t cols : {1, 13, 32, 203, 1031}) {
      constexpr int64_t kRows = 71;
      const int64_t row_bytes = 4 * PackedWords(cols, bits), stride = row_bytes + 3;
      std::vector<uint8_t> codes(kRows * cols), packed(kRows * stride, 0xff);
      for (size_t i = 0; i < codes.size(); ++i) {
        codes[i] = static_cast<uint8_t>((i * 37 + i / 5) & ((1 << bits) - 1));
      }
      for (int64_t r = 0; r < kRows; ++r) {
        PackBits(&codes[r * cols], cols, bits, &packed[r * stride]);
      }
      const auto stream = BufferOn<uint8_t>(*device_, {packed.data(), kRows, row_bytes, stride});
      const auto found = *device_->NewBuffer<uint8_t>(kRows, cols);
      ASSERT_OK(device_->UnpackCodes(stream->view(), bits, found->view()));
      ASSERT_EQ(ElementsOf(*device_, found->view()), codes) << bits << " bits, " << cols;
    }
  }
  const auto bytes = *device_->NewBuffer<uint8_t>(2, 8);
  EXPECT_FALSE(device_->UnpackCodes(bytes->view(), 9, bytes->view()).ok());
  EXPECT_FALSE(device_->UnpackCodes(bytes->view(), 3, bytes->view()).ok()) << "4 bytes a row";
}

// Equal to the bit; a NaN has no agreed payload.
void ExpectSameBits(const Matrix& found, const Matrix& expected, absl::string_view what) {
  for (int64_t i = 0; i < expected.size(); ++i) {
    const float value = found.data()[i], wanted = expected.data()[i];
    if (std::isnan(wanted) && std::isnan(value)) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(wanted))
        << what << ", value " << i << ": " << value << ", expected " << wanted;
  }
}

// Any bytes are a block: of every type the values that the host makes of it, whose own test has
// those that gguf-py makes. With rows that lie apart.
TEST_P(QuantizeOps, BlocksBecomeTheWeightsThatTheyAreOnTheHost) {
  std::mt19937 random(5);
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape == nullptr) continue;
    constexpr int64_t kRows = 37;
    const int64_t cols = 3 * type->block_size;
    const int64_t row_bytes = type->RowBytes(cols), stride = row_bytes + 3;
    std::vector<uint8_t> bytes(static_cast<size_t>(kRows * stride));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    Matrix expected(kRows, cols);
    for (int64_t r = 0; r < kRows; ++r) {
      DequantizeRow(*type, &bytes[static_cast<size_t>(r * stride)], cols, expected.Row(r));
    }
    const auto blocks = BufferOn<uint8_t>(*device_, {bytes.data(), kRows, row_bytes, stride});
    const auto weight = *device_->NewMatrix(kRows, cols);
    ASSERT_OK(device_->DequantizeBlocks(blocks->view(), *type->shape->layout, weight->view()));
    ExpectSameBits(OnHost(*device_, weight->view()), expected, type->name);
    EXPECT_FALSE(device_
                     ->DequantizeBlocks(blocks->view().Cols(0, row_bytes - 1), *type->shape->layout,
                                        weight->view())
                     .ok())
        << type->name;
  }
  BlockLayout large;
  large.block_size = 2 * kMaxBlockSize;
  large.block_bytes = 2 * kMaxBlockSize;
  const auto bytes = *device_->NewBuffer<uint8_t>(1, large.block_bytes);
  const auto weight = *device_->NewMatrix(1, large.block_size);
  EXPECT_FALSE(device_->DequantizeBlocks(bytes->view(), large, weight->view()).ok());
}

TEST_P(QuantizeOps, EightBitFloatsBecomeTheirValuesTimesTheirRowsScale) {
  constexpr int64_t kRows = 5, kCols = 256;
  std::vector<uint8_t> codes(kRows * kCols);
  Matrix scales(kRows, 1), expected(kRows, kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    scales.Row(r)[0] = 0.37f * static_cast<float>(r + 1);
    for (int64_t k = 0; k < kCols; ++k) {
      codes[static_cast<size_t>(r * kCols + k)] = static_cast<uint8_t>(k + 50 * r);
      expected.Row(r)[k] = scales.Row(r)[0] * E4M3ToFloat(static_cast<uint8_t>(k + 50 * r));
    }
  }
  const auto on = CodesOn(*device_, codes, kCols);
  const auto scales_on = OnDevice(device_.get(), scales.view());
  const auto weight = *device_->NewMatrix(kRows, kCols);
  ASSERT_OK(device_->DequantizeE4M3(on->view(), scales_on->view(), weight->view()));
  ExpectSameBits(OnHost(*device_, weight->view()), expected, "E4M3");
  EXPECT_FALSE(device_->DequantizeE4M3(on->view(), scales_on->Rows(0, 4), weight->view()).ok());
}

TEST_P(QuantizeOps, TiesGoToEvenAndNaNToZero) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Matrix weight(1, 20);
  for (int64_t k = 0; k < 20; ++k) weight.Row(0)[k] = 0.25f * static_cast<float>(k - 10);
  weight.Row(0)[3] = weight.Row(0)[18] = nan;
  const GridSpec grid{.bits = 4, .group_size = 0};
  Grids grids{Matrix(1, 1), Matrix(1, 1)};
  grids.scales.Row(0)[0] = 0.5f;
  grids.zeros.Row(0)[0] = 0;
  {
    Device* device = device_.get();
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

// Sums of differences that are exact on the grid's values, in F32 parts within a group: 16 terms a
// part at most, so a relative error below 64 eps.
TEST_P(QuantizeOps, GridErrorAgrees) {
  for (const auto& [cols, grid] : GridCases()) {
    const Matrix weight = GaussianMatrix(7, cols, 79, 0.03f);
    const Grids fit = Fit(&reference_, weight.view(), grid, nullptr);
    const std::vector<uint8_t> codes = Round(&reference_, weight.view(), grid, fit);
    const auto on = OnDevice(device_.get(), weight.view());
    const auto error = VectorOn(*device_, std::vector<double>(7, -1));
    const auto square = VectorOn(*device_, std::vector<double>(7, -1));
    ASSERT_OK(device_->GridError(on->view(), CodesOn(*device_, codes, cols)->view(), grid,
                                 OnDevice(device_.get(), fit.scales.view())->view(),
                                 OnDevice(device_.get(), fit.zeros.view())->view(), error->span(),
                                 square->span()));
    const std::vector<double> errors = ElementsOf(*device_, error->span());
    const std::vector<double> squares = ElementsOf(*device_, square->span());
    const Matrix values = Values(&reference_, codes, grid, fit, cols);
    for (int64_t r = 0; r < 7; ++r) {
      double expected = 0, whole = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double w = weight.Row(r)[k];
        expected += (w - values.Row(r)[k]) * (w - values.Row(r)[k]);
        whole += w * w;
      }
      EXPECT_NEAR(errors[r], expected, 64 * 6e-8 * whole) << grid.bits << " bits, row " << r;
      EXPECT_NEAR(squares[r], whole, 64 * 6e-8 * whole);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, QuantizeOps, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
