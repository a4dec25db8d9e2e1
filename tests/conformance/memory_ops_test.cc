// Device memory: what crosses between host and device arrives, on every device and for every type
// of element; and what confuses the two does not compile, or faults.
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

// Host memory is no device memory, for the compiler.
template <typename D>
concept AddsHostMatrices = requires(D device, MatrixView m) {
  device.Add(m, m);
};
template <typename D>
concept AddsDeviceMatrices = requires(D device, DeviceView<float> m) {
  device.Add(m, m);
};
static_assert(AddsDeviceMatrices<Device> && !AddsHostMatrices<Device>);
static_assert(!std::is_convertible_v<MatrixView, DeviceView<float>>);
static_assert(!std::is_convertible_v<DeviceView<float>, MatrixView>);
static_assert(!std::is_convertible_v<float*, DevicePtr<float>>);
static_assert(!std::is_convertible_v<DevicePtr<float>, float*>);
static_assert(!std::is_convertible_v<DeviceView<const float>, DeviceView<float>>);
static_assert(!std::is_convertible_v<DeviceView<double>, DeviceView<float>>);

class MemoryOps : public DeviceTest {
 protected:
  // A ragged part of a matrix goes up, is copied to another part, and comes back; what lies around
  // it stays as it was.
  template <typename T>
  void RoundTrip() {
    constexpr int64_t kRows = 70, kCols = 41;
    std::vector<T> host(kRows * kCols);
    std::iota(host.begin(), host.end(), T{1});
    const HostView<const T> part{host.data() + 3, kRows, 20, kCols};
    const auto first = *device_->NewBuffer<T>(kRows, kCols);
    const auto second = *device_->NewBuffer<T>(kRows, kCols);
    ASSERT_OK(device_->FillZero(first->view()));
    ASSERT_OK(device_->FillZero(second->span()));
    ASSERT_OK(device_->Upload(part, first->view().Cols(3, 20)));
    ASSERT_OK(device_->Copy(first->view().Cols(3, 20), second->view().Cols(5, 20)));
    const std::vector<T> back = ElementsOf(*device_, second->view());
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const T expected = c >= 5 && c < 25 ? part.Row(r)[c - 5] : T{0};
        ASSERT_EQ(back[r * kCols + c], expected) << r << ", " << c;
      }
    }
    EXPECT_FALSE(device_->Upload(part, first->view()).ok());
    EXPECT_FALSE(device_->Copy(first->view().Cols(3, 20), second->view().Cols(5, 21)).ok());
  }
};

TEST_P(MemoryOps, EveryTypeMakesTheRoundTrip) {
  RoundTrip<float>();
  RoundTrip<double>();
  RoundTrip<uint8_t>();
  RoundTrip<int32_t>();
}

TEST_P(MemoryOps, NothingIsFineAndTooMuchIsRefused) {
  EXPECT_OK(device_->NewMatrix(0, 16).status());
  EXPECT_OK(device_->FillZero((*device_->NewMatrix(16, 0))->view()));
  EXPECT_EQ(device_->NewMatrix(int64_t{1} << 40, int64_t{1} << 40).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(device_->NewMatrix(-1, 4).ok());
  EXPECT_OK(device_->Synchronize());
}

TEST_P(MemoryOps, DiagonalsAreViewsToo) {
  const auto m = OnDevice(device_.get(), Random(9, 9, 1).view());
  const Matrix before = OnHost(*device_, m->view());
  std::vector<float> diagonal = ElementsOf(*device_, m->view().Diagonal());
  for (int64_t i = 0; i < 9; ++i) ASSERT_EQ(diagonal[i], before.Row(i)[i]);
  ASSERT_OK(device_->FillZero(m->view().Diagonal()));
  const Matrix after = OnHost(*device_, m->view());
  for (int64_t i = 0; i < 9; ++i) {
    for (int64_t j = 0; j < 9; ++j) EXPECT_EQ(after.Row(i)[j], i == j ? 0 : before.Row(i)[j]);
  }
}

// All 65,536 values; half.h is tested by itself.
TEST_P(MemoryOps, WideningIsExact) {
  std::vector<uint16_t> bits(65536);
  std::iota(bits.begin(), bits.end(), uint16_t{0});
  const auto wide = *device_->NewMatrix(37, 1771);  // most of them, in ragged rows
  const auto check = [&](auto element, float (*to_float)(uint16_t)) {
    using T = decltype(element);
    std::vector<T> host;
    for (const uint16_t b : bits) host.push_back({b});
    ASSERT_OK(
        device_->Widen(BufferOn<T>(*device_, {host.data(), 37, 1771, 1771})->view(), wide->view()));
    const std::vector<float> found = ElementsOf(*device_, wide->view());
    for (size_t i = 0; i < found.size(); ++i) {
      const float expected = to_float(bits[i]);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(found[i])) << bits[i];
      } else {
        ASSERT_EQ(found[i], expected) << bits[i];
        ASSERT_EQ(std::signbit(found[i]), std::signbit(expected)) << bits[i];
      }
    }
  };
  check(BF16{}, &BF16ToFloat);
  std::reverse(bits.begin(), bits.end());  // the signed values, infinity and NaN
  check(BF16{}, &BF16ToFloat);
  check(F16{}, &F16ToFloat);
  std::reverse(bits.begin(), bits.end());
  check(F16{}, &F16ToFloat);
}

TEST_P(MemoryOps, ColumnsAreGathered) {
  const Matrix x = Random(70, 30, 1);
  const auto from = OnDevice(device_.get(), x.view());
  const std::vector<int32_t> order = {29, 0, 7, 7};
  const auto columns = VectorOn(*device_, order);
  const auto to = *device_->NewMatrix(70, 4);
  ASSERT_OK(device_->GatherColumns(from->view(), columns->span(), to->view()));
  const Matrix found = OnHost(*device_, to->view());
  std::vector<uint8_t> bytes(70 * 30);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
  const auto codes = *device_->NewBuffer<uint8_t>(70, 4);
  ASSERT_OK(device_->GatherColumns(BufferOn<uint8_t>(*device_, {bytes.data(), 70, 30, 30})->view(),
                                   columns->span(), codes->view()));
  const std::vector<uint8_t> found_codes = ElementsOf(*device_, codes->view());
  for (int64_t r = 0; r < 70; ++r) {
    for (size_t j = 0; j < 4; ++j) {
      ASSERT_EQ(found.Row(r)[j], x.Row(r)[order[j]]);
      ASSERT_EQ(found_codes[r * 4 + j], bytes[r * 30 + order[j]]);
    }
  }
}

TEST_P(MemoryOps, TheFirstElementThatIsNotFiniteIsNamed) {
  Matrix x = Random(150, 37, 1);
  EXPECT_OK(device_->CheckFinite("a weight", OnDevice(device_.get(), x.view())->view()));
  x.Row(140)[1] = std::numeric_limits<float>::infinity();
  x.Row(129)[36] = std::numeric_limits<float>::quiet_NaN();
  absl::Status status = device_->CheckFinite("a weight", OnDevice(device_.get(), x.view())->view());
  if (status.ok()) status = device_->Synchronize();
  EXPECT_THAT(status, FailsWith("NON_FINITE_WEIGHTS", ::testing::HasSubstr("a weight")));
  EXPECT_THAT(status, FailsWith("NON_FINITE_WEIGHTS", ::testing::HasSubstr("[129, 36]")));
}

INSTANTIATE_TEST_SUITE_P(Devices, MemoryOps, ::testing::ValuesIn(AllDevices()), DeviceName);

// Who insists, by DevicePtr's constructor or its address, dies on a device in another address
// space.
class OffsetReferenceDeathTest : public ::testing::Test {
 protected:
  ReferenceDevice device_{HostSpace(HostSpace::kFarAway)};
};

TEST_F(OffsetReferenceDeathTest, HostMemoryInAnOperationFaults) {
  const auto out = OnDevice(&device_, Zeros(4, 4).view());
  Matrix host = Zeros(4, 4);
  const DeviceView<float> planted{DevicePtr<float>(host.data()), 4, 4, 4};
  EXPECT_DEATH((void)device_.Add(planted, out->view()), "");
  EXPECT_DEATH((void)device_.Add(out->view(), planted), "");
  EXPECT_DEATH((void)device_.Download(planted, host.view()), "");
}

TEST_F(OffsetReferenceDeathTest, DeviceMemoryInAHostLoopFaults) {
  const auto m = OnDevice(&device_, Zeros(4, 4).view());
  volatile float sum = 0;
  EXPECT_DEATH(sum = sum + *m->view().data.address(), "");
}

}  // namespace
}  // namespace lwq::testing
