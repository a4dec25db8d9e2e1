// Stored linears in the memory of every device: the same weights, to the bit, as on the host.
#include "worker/engine/artifact/load_stored.h"

#include <cstring>

#include "tests/testing/test_devices.h"
#include "worker/engine/format/grid.h"

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

TEST_P(LoadStoredTest, OtherFormatsCrossRowByRow) {
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
