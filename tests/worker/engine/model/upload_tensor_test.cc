// Tensors as they are stored, on every device: the same values as WidenToFloat's, and its errors.
#include "worker/engine/model/upload_tensor.h"

#include <cstring>
#include <limits>
#include <string>

#include "tests/testing/test_devices.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq::testing {
namespace {

constexpr int64_t kRows = 700, kCols = 411;  // more than is staged at once

// Stored at an odd address, as a safetensors file may have it.
struct Stored {
  explicit Stored(DType dtype) : bytes(1 + kRows * kCols * SizeOf(dtype), '\0') {
    view = {dtype, {kRows, kCols}, Content()};
    for (int64_t i = 0; i < kRows * kCols; ++i) Set(i, static_cast<float>(i % 977) / 32 - 9);
  }
  absl::Span<const uint8_t> Content() const {
    return absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())
        .subspan(1);
  }
  void Set(int64_t i, float value) {
    const uint16_t half = view.dtype == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value);
    const int size = SizeOf(view.dtype);
    std::memcpy(bytes.data() + 1 + i * size, size == 4 ? static_cast<const void*>(&value) : &half,
                size);
  }
  std::string bytes;
  TensorView view;
};

class UploadTensorTest : public DeviceTest {};

TEST_P(UploadTensorTest, GivesWhatWideningOnTheHostDoes) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const Stored stored(dtype);
    Matrix expected(kRows, kCols);
    ASSERT_OK(WidenToFloat("w", stored.view, true, expected.view()));
    const auto out = *device_->NewMatrix(kRows, kCols);
    ASSERT_OK(UploadTensor(device_.get(), "w", stored.view, out->view()));
    const Matrix found = OnHost(*device_, out->view());
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), sizeof(float) * kRows * kCols), 0)
        << NameOf(dtype);
  }
}

TEST_P(UploadTensorTest, VectorsAreOneRow) {
  const Stored stored(DType::kBF16);
  TensorView vector = stored.view;
  vector.shape = {kCols};
  vector.bytes = vector.bytes.first(2 * kCols);
  const auto out = *device_->NewMatrix(1, kCols);
  ASSERT_OK(UploadTensor(device_.get(), "v", vector, out->view()));
  EXPECT_EQ(ElementsOf(*device_, out->view())[33], 33.0f / 32 - 9);
}

TEST_P(UploadTensorTest, WhatIsNotAWeightIsRefused) {
  Stored stored(DType::kBF16);
  const auto out = *device_->NewMatrix(kRows, kCols);
  stored.Set(650 * kCols + 7, std::numeric_limits<float>::infinity());
  absl::Status status = UploadTensor(device_.get(), "w", stored.view, out->view());
  if (status.ok()) status = device_->Synchronize();
  EXPECT_THAT(status, FailsWith("NON_FINITE_WEIGHTS", ::testing::HasSubstr("w: element [650, 7]")));
  EXPECT_THAT(UploadTensor(device_.get(), "w", stored.view, out->Rows(0, 3)),
              FailsWith("CONFIG_MISMATCH", ::testing::HasSubstr("[3, 411]")));
  stored.view.dtype = DType::kI16;
  EXPECT_THAT(UploadTensor(device_.get(), "w", stored.view, out->view()),
              FailsWith("DTYPE_UNSUPPORTED", ::testing::HasSubstr("I16")));
}

INSTANTIATE_TEST_SUITE_P(Devices, UploadTensorTest, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
