// Stored linears in the memory of every device: the same weights, to the bit, as on the host.
#include "worker/engine/artifact/load_stored.h"

#include <cstring>
#include <random>

#include "tests/testing/test_devices.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/gguf/block_fit.h"

namespace lwq::testing {
namespace {

StoredLinear Stored(const WeightFormat& format, int64_t rows, int64_t cols,
                    const EncodedLinear& encoded) {
  StoredLinear stored{&format, rows, cols, {}};
  for (const EncodedPart& part : encoded) {
    stored.parts.push_back(
        {part.spec.dtype,
         part.spec.shape,
         {reinterpret_cast<const uint8_t*>(part.bytes.data()), part.bytes.size()}});
  }
  return stored;
}

class LoadStoredTest : public DeviceTest {
 protected:
  void ExpectSameAsOnTheHost(const StoredLinear& stored) {
    Matrix expected(stored.out_features, stored.in_features);
    ASSERT_OK(DequantizeLinear("m", stored, expected.view()));
    const auto out = *device_->NewMatrix(expected.rows(), expected.cols());
    ASSERT_OK(LoadStored("m", stored, device_.get(), out->view()));
    const Matrix found = OnHost(*device_, out->view());
    EXPECT_EQ(std::memcmp(found.data(), expected.data(),
                          sizeof(float) * static_cast<size_t>(found.size())),
              0)
        << stored.format->id();
    // Some rows, not from the first on.
    const int64_t first = expected.rows() / 3, count = expected.rows() / 2;
    const auto part = *device_->NewMatrix(count, expected.cols());
    ASSERT_OK(LoadStoredRows("m", stored, first, device_.get(), part->view()));
    const Matrix rows = OnHost(*device_, part->view());
    EXPECT_EQ(std::memcmp(rows.data(), expected.view().Row(first),
                          sizeof(float) * static_cast<size_t>(rows.size())),
              0)
        << stored.format->id() << ", rows from " << first << " on";
    EXPECT_THAT(LoadStored("m", stored, device_.get(), out->Rows(0, 1)),
                FailsWith("CONFIG_MISMATCH", ::testing::HasSubstr("m is stored")));
  }
};

TEST_P(LoadStoredTest, GridsBecomeWeightsOnTheDevice) {
  constexpr int64_t kRows = 64, kCols = 192;
  for (const int bits : {2, 3, 5, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const int64_t group : {0, 64}) {
        const GridFormat& format = *GridFormat::Find(bits, group, symmetric);
        GridCodes linear{kRows, kCols, {}, {}, {}};
        const int top = (1 << bits) - 1;
        for (int i = 0; i < kRows * kCols; ++i) {
          linear.codes.push_back(static_cast<uint8_t>((i * 37 + i / 5) & top));
        }
        linear.scales = Matrix(kRows, format.NumGroups(kCols));
        if (!symmetric) linear.zeros = Matrix(kRows, format.NumGroups(kCols));
        for (int i = 0; i < linear.scales.size(); ++i) {
          linear.scales.data()[i] =
              (i % 2 == 0 ? 1 : -1) * 0x1p-8f * static_cast<float>(i % 99 + 1);
          if (!symmetric) linear.zeros.data()[i] = static_cast<float>(i & top);
        }
        LWQ_ASSERT_OK_AND_ASSIGN(const EncodedLinear encoded,
                                 format.Encode("m", linear, DType::kBF16));
        ExpectSameAsOnTheHost(Stored(format, kRows, kCols, encoded));
      }
    }
  }
}

TEST_P(LoadStoredTest, BlocksOfEveryTypeBecomeWeightsOnTheDevice) {
  std::mt19937 random(7);
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape == nullptr) continue;
    constexpr int64_t kRows = 24, kCols = 512;
    const GgufFormat& format = *GgufFormat::Find(*type);
    EncodedLinear encoded = {{format.Parts(kRows, kCols, DType::kBF16)[0], {}}};
    std::vector<float> weights(kCols);
    for (int64_t r = 0; r < kRows; ++r) {
      for (float& weight : weights) weight = std::normal_distribution<float>(0, 0.03f)(random);
      std::string row(static_cast<size_t>(type->RowBytes(kCols)), '\0');
      QuantizeRow(*type, GgufFit::kReference, weights, {}, reinterpret_cast<uint8_t*>(row.data()));
      encoded[0].bytes += row;
    }
    ExpectSameAsOnTheHost(Stored(format, kRows, kCols, encoded));
    // A scale of an infinity is found wherever it is.
    const size_t at =
        static_cast<size_t>(3 * type->RowBytes(kCols) + type->shape->layout->scale_at);
    encoded[0].bytes.replace(at, 2, "\x00\x7c", 2);
    const StoredLinear damaged = Stored(format, kRows, kCols, encoded);
    const auto out = *device_->NewMatrix(kRows, kCols);
    absl::Status status = LoadStored("m", damaged, device_.get(), out->view());
    status.Update(device_->Synchronize());
    EXPECT_THAT(status, FailsWith("NON_FINITE_WEIGHTS", ::testing::HasSubstr(type->name)));
  }
}

TEST_P(LoadStoredTest, EightBitFloatsBecomeWeightsOnTheDevice) {
  const Fp8RowFormat& format = *Fp8RowFormat::Find();
  // The second is more than crosses at once.
  for (const auto& [rows, cols] : {std::pair(48, 64), std::pair(1500, 1000)}) {
    Matrix weight(rows, cols);
    for (int64_t i = 0; i < weight.size(); ++i) {
      const int64_t row = i / cols;
      // Rows of seven scales.
      weight.data()[i] = 0x1p-10f * static_cast<float>(((i + row) % 991 - 500) * (1 + row % 7));
    }
    ExpectSameAsOnTheHost(Stored(format, rows, cols, format.Encode(weight.view(), DType::kBF16)));
  }
}

TEST_P(LoadStoredTest, MoreBlocksThanCrossAtOnceBecomeWeightsOnTheDevice) {
  constexpr int64_t kRows = 2100, kCols = 512;
  const GgufTypeDef& type = DefOf(GgufType::kQ4_0);
  const GgufFormat& format = *GgufFormat::Find(type);
  EncodedLinear encoded = {{format.Parts(kRows, kCols, DType::kBF16)[0], {}}};
  std::vector<float> weights(kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      weights[static_cast<size_t>(c)] = 0x1p-9f * static_cast<float>((r * 31 + c * 7) % 255 - 127);
    }
    std::string row(static_cast<size_t>(type.RowBytes(kCols)), '\0');
    QuantizeRow(type, GgufFit::kReference, weights, {}, reinterpret_cast<uint8_t*>(row.data()));
    encoded[0].bytes += row;
  }
  ExpectSameAsOnTheHost(Stored(format, kRows, kCols, encoded));
}

// Integers of 16 bits, which no device knows.
class Shorts : public WeightFormat {
 public:
  Shorts() : WeightFormat("shorts", "", false) {}
  absl::Status Accepts(int64_t, int64_t) const override { return absl::OkStatus(); }
  std::vector<PartSpec> Parts(int64_t rows, int64_t cols, DType) const override {
    return {{"shorts", DType::kU8, {rows, 2 * cols}}};
  }
  absl::Status Dequantize(absl::string_view, absl::Span<const TensorView> parts, int64_t first_row,
                          MatrixView out) const override {
    for (int64_t i = 0; i < out.rows * out.cols; ++i) {
      int16_t value;
      std::memcpy(&value, parts[0].bytes.data() + 2 * (first_row * out.cols + i), 2);
      out.Row(i / out.cols)[i % out.cols] = value;
    }
    return absl::OkStatus();
  }
};

TEST_P(LoadStoredTest, AFormatThatNoDeviceKnowsCrossesAsWeights) {
  constexpr int64_t kRows = 1500, kCols = 1000;  // more than crosses at once
  const Shorts format;
  EncodedLinear encoded = {{format.Parts(kRows, kCols, DType::kF32)[0], {}}};
  for (int i = 0; i < kRows * kCols; ++i) {
    encoded[0].bytes.push_back(static_cast<char>(i % 253));
    encoded[0].bytes.push_back(static_cast<char>(i % 127));
  }
  ExpectSameAsOnTheHost(Stored(format, kRows, kCols, encoded));
}

TEST_P(LoadStoredTest, DenseWeightsCrossAsTheyAreStored) {
  constexpr int64_t kRows = 1500, kCols = 1000;  // more than crosses at once
  EncodedLinear encoded = {{DenseFormat()->Parts(kRows, kCols, DType::kF32)[0], {}}};
  std::vector<float> values(kRows * kCols);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1013) - 500;
  encoded[0].bytes.assign(reinterpret_cast<const char*>(values.data()), 4 * values.size());
  ExpectSameAsOnTheHost(Stored(*DenseFormat(), kRows, kCols, encoded));
}

INSTANTIATE_TEST_SUITE_P(Devices, LoadStoredTest, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
