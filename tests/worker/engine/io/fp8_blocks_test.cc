#include "worker/engine/io/fp8_blocks.h"

#include <cmath>
#include <cstring>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/plan/safetensors_layout.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

// A checkpoint of one weight "w" [rows, cols] and its scales.
class Fp8Test : public ::testing::Test {
 protected:
  void Write(int64_t rows, int64_t cols, const std::string& codes, const std::vector<float>& scales,
             std::vector<int64_t> scales_shape) {
    std::string scale_bytes(4 * scales.size(), '\0');
    std::memcpy(scale_bytes.data(), scales.data(), scale_bytes.size());
    const SafetensorsLayout layout =
        LayOutSafetensors({{"w", DType::kF8E4M3, {rows, cols}},
                           {"w_scale_inv", DType::kF32, std::move(scales_shape)}});
    std::string file(layout.header.begin(), layout.header.end());
    for (const TensorSpec& tensor : layout.tensors) {
      file += tensor.name == "w" ? codes : scale_bytes;
    }
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    scratch_ = std::make_unique<TempDirectory>(std::move(scratch));
    ASSERT_OK(WriteFileAtomically(JoinPath(scratch_->path(), "model.safetensors"), file));
    LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(scratch_->path()));
  }
  std::unique_ptr<TempDirectory> scratch_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

// The table of OCP's "8-bit floating point specification" for E4M3.
TEST_F(Fp8Test, EveryCodeIsItsValue) {
  std::string codes(256, '\0');
  for (int i = 0; i < 256; ++i) codes[static_cast<size_t>(i)] = static_cast<char>(i);
  codes[0x7f] = codes[0xff] = 0;  // NaN
  ASSERT_NO_FATAL_FAILURE(Write(2, 128, codes, {1}, {1, 1}));
  Matrix values(2, 128);
  ASSERT_OK(ReadFp8Rows(*checkpoint_, "w", 0, values.view()));
  EXPECT_EQ(values.Row(0)[0x01], 0x1p-9f);           // smallest subnormal
  EXPECT_EQ(values.Row(0)[0x07], 0.875f * 0x1p-6f);  // largest
  EXPECT_EQ(values.Row(0)[0x08], 0x1p-6f);           // smallest normal
  EXPECT_EQ(values.Row(0)[0x38], 1.0f);
  EXPECT_EQ(values.Row(0)[0x7e], 448.0f);  // largest
  EXPECT_EQ(values.Row(1)[0x3c], -1.5f);
  for (int i = 1; i < 0x7f; ++i) {
    EXPECT_GT(values.Row(0)[i], values.Row(0)[i - 1]);
    EXPECT_EQ(values.Row(1)[i], -values.Row(0)[i]);
  }
}

// What torch made of the same file: tests/golden/fp8/record.py.
TEST_F(Fp8Test, IsWhatTorchDequantizes) {
  LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(LWQ_SOURCE_DIR "/tests/golden/fp8"));
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView recorded, checkpoint_->Get("w_read"));
  const int64_t rows = recorded.shape[0], cols = recorded.shape[1];
  Matrix ours(rows, cols), torchs(rows, cols);
  ASSERT_OK(ReadFp8Rows(*checkpoint_, "w", 0, ours.view()));
  ASSERT_OK(WidenToFloat("w_read", recorded, /*refuse_non_finite=*/true, torchs.view()));
  EXPECT_EQ(std::memcmp(ours.data(), torchs.data(), sizeof(float) * rows * cols), 0);
}

// Blocks at the edges are smaller; what BF16 does not have is rounded to it.
TEST_F(Fp8Test, EachBlockHasItsScale) {
  const int64_t rows = 130, cols = 257;
  ASSERT_NO_FATAL_FAILURE(Write(rows, cols, std::string(rows * cols, '\x3c'),  // 1.5
                                {1, 2, 4, 1.0f + 0x1p-9f, 16, 32}, {2, 3}));
  Matrix all(rows, cols), last(2, cols);
  ASSERT_OK(ReadFp8Rows(*checkpoint_, "w", 0, all.view()));
  EXPECT_EQ(all.Row(127)[127], 1.5f);
  EXPECT_EQ(all.Row(127)[128], 3.0f);
  EXPECT_EQ(all.Row(0)[256], 6.0f);
  EXPECT_EQ(all.Row(128)[0], 1.5f) << "1.5 * (1 + 2^-9) has ten significant bits";
  EXPECT_EQ(all.Row(129)[256], 48.0f);
  ASSERT_OK(ReadFp8Rows(*checkpoint_, "w", 128, last.view()));
  EXPECT_EQ(std::memcmp(last.data(), all.Row(128), sizeof(float) * 2 * cols), 0);
}

TEST_F(Fp8Test, WhatDoesNotFitIsRefused) {
  Matrix values(2, 128);
  ASSERT_NO_FATAL_FAILURE(Write(2, 128, std::string(256, '\x7f'), {1}, {1, 1}));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 0, values.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("tensor w [0, 0] is F8_E4M3's code")));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 1, values.view()),
              FailsWith("CONFIG_MISMATCH", HasSubstr("rows 1 to 3")));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", -1, values.view()),
              FailsWith("CONFIG_MISMATCH", HasSubstr("rows -1 to 1")));
  // More scales than blocks, and fewer: nothing beyond the scales is read.
  ASSERT_NO_FATAL_FAILURE(Write(129, 128, std::string(129 * 128, '\1'), {1}, {1, 1}));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 0, values.view()),
              FailsWith("PACKED_SHAPE", HasSubstr("[2, 1]")));
  ASSERT_NO_FATAL_FAILURE(Write(2, 128, std::string(256, '\1'), {1, 1}, {2, 1}));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 0, values.view()),
              FailsWith("PACKED_SHAPE", HasSubstr("the scales of tensor w")));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "v", 0, values.view()),
              FailsWith("TENSOR_MISSING", HasSubstr("v")));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w_scale_inv", 0, values.view()),
              FailsWith("DTYPE_UNSUPPORTED", HasSubstr("w_scale_inv is F32")));
  // 448 times this is beyond BF16.
  ASSERT_NO_FATAL_FAILURE(Write(2, 128, std::string(256, '\x7e'), {0x1p120f}, {1, 1}));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 0, values.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("tensor w [0, 0] is beyond")));
  ASSERT_NO_FATAL_FAILURE(Write(2, 128, std::string(256, '\1'), {NAN}, {1, 1}));
  EXPECT_THAT(ReadFp8Rows(*checkpoint_, "w", 0, values.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("w_scale_inv")));
}

}  // namespace
}  // namespace lwq
