#include "worker/engine/artifact/compressed_tensors.h"

#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/simple_quantizer.h"
#include "worker/engine/artifact/pack_bits.h"

namespace lwq {
namespace {

using ::testing::_;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::QuantizeSimply;
using testing::RandomWeight;

// The tensors of a packed linear, to be damaged and read back.
class Tensors {
 public:
  explicit Tensors(const PackedLinear& packed) {
    for (const PackedTensor& tensor : packed.tensors) tensors_[tensor.spec.name] = tensor;
  }
  PackedTensor& operator[](const std::string& name) { return tensors_[name]; }
  void Erase(const std::string& name) { tensors_.erase(name); }
  absl::StatusOr<StoredLinear> Find() const {
    return FindStoredLinear("m", [this](absl::string_view name) -> absl::StatusOr<TensorView> {
      const auto found = tensors_.find(std::string(name));
      if (found == tensors_.end()) {
        return Failure(absl::StatusCode::kNotFound, "TENSOR_MISSING", name);
      }
      const std::string& bytes = found->second.bytes;
      return TensorView{found->second.spec.dtype,
                        found->second.spec.shape,
                        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}};
    });
  }

 private:
  std::map<std::string, PackedTensor> tensors_;
};

void ExpectSameMatrix(const Matrix& a, const Matrix& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a.data()[i], b.data()[i]) << i;
}

TEST(CompressedTensorsTest, EveryFormatComesBackBitForBit) {
  const Matrix weight = RandomWeight(96, 256, 3);
  for (int bits = 1; bits <= 8; ++bits) {
    for (int64_t group : {int64_t{0}, int64_t{32}, int64_t{128}}) {
      for (bool symmetric : {true, false}) {
        SCOPED_TRACE(absl::StrCat(bits, " bits, group ", group, symmetric ? "" : ", asymmetric"));
        GridSpec grid{bits, group, symmetric, false};
        const QuantizedLinear linear = QuantizeSimply(weight.view(), grid);
        for (DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
          LWQ_ASSERT_OK_AND_ASSIGN(PackedLinear packed, PackLinear("m", linear, dtype));
          LWQ_ASSERT_OK_AND_ASSIGN(StoredLinear stored, Tensors(packed).Find());
          EXPECT_EQ(stored.grid.bits, bits);
          EXPECT_EQ(stored.grid.group_size, group);
          EXPECT_EQ(stored.grid.symmetric, symmetric);
        }
        LWQ_ASSERT_OK_AND_ASSIGN(PackedLinear packed, PackLinear("m", linear, DType::kF16));
        const Tensors tensors(packed);
        LWQ_ASSERT_OK_AND_ASSIGN(StoredLinear stored, tensors.Find());
        LWQ_ASSERT_OK_AND_ASSIGN(QuantizedLinear back, UnpackLinear("m", stored));
        EXPECT_EQ(back.codes, linear.codes);
        ExpectSameMatrix(back.scales, linear.scales);
        ExpectSameMatrix(back.zeros, linear.zeros);
        Matrix values(96, 256);
        ASSERT_OK(DequantizeStored("m", stored, values.view()));
        const int64_t columns = grid.GroupSizeFor(256);
        for (int64_t i = 0; i < values.size(); ++i) {
          const int64_t r = i / 256;
          const int64_t g = i % 256 / columns;
          const float zero =
              symmetric ? static_cast<float>(1 << (bits - 1)) : linear.zeros.Row(r)[g];
          const float code = linear.codes[static_cast<size_t>(i)];
          ASSERT_EQ(values.data()[i], linear.scales.Row(r)[g] * (code - zero)) << i;
        }
      }
    }
  }
}

// The worked examples of the format: 32 3-bit codes j mod 8, and 4-bit zero points 0..7 of 8 rows.
TEST(CompressedTensorsTest, EqualsTheWorkedExamples) {
  QuantizedLinear linear;
  linear.out_features = 1;
  linear.in_features = 32;
  linear.grid = {3, 0, true, false};
  for (int j = 0; j < 32; ++j) linear.codes.push_back(static_cast<uint8_t>(j % 8));
  linear.scales = Matrix(1, 1);
  linear.scales.data()[0] = 0.5f;
  LWQ_ASSERT_OK_AND_ASSIGN(PackedLinear packed, PackLinear("m", linear, DType::kF16));
  uint32_t words[3];
  std::memcpy(words, packed.tensors[0].bytes.data(), sizeof(words));
  EXPECT_THAT(words, ::testing::ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
  EXPECT_EQ(packed.tensors[1].bytes, std::string("\x00\x38", 2));
  int64_t shape[2];
  std::memcpy(shape, packed.tensors[2].bytes.data(), sizeof(shape));
  EXPECT_THAT(shape, ::testing::ElementsAre(1, 32));
  Tensors tensors(packed);
  LWQ_ASSERT_OK_AND_ASSIGN(StoredLinear stored, tensors.Find());
  Matrix values(1, 32);
  ASSERT_OK(DequantizeStored("m", stored, values.view()));
  EXPECT_EQ(values.data()[0], -2.0f);

  linear.out_features = 8;
  linear.grid = {4, 0, false, false};
  linear.codes.assign(8 * 32, 0);
  linear.scales = Matrix(8, 1);
  linear.zeros = Matrix(8, 1);
  for (int r = 0; r < 8; ++r) {
    linear.scales.data()[r] = 1;
    linear.zeros.data()[r] = static_cast<float>(r);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(packed, PackLinear("m", linear, DType::kF16));
  ASSERT_EQ(packed.tensors[3].spec.name, "m.weight_zero_point");
  EXPECT_EQ(packed.tensors[3].spec.shape, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(packed.tensors[3].bytes, "\x10\x32\x54\x76");
}

TEST(CompressedTensorsTest, WhatCannotBeStoredExactlyIsNotPacked) {
  const Matrix weight = RandomWeight(32, 64, 4);
  const GridSpec grid{4, 32, false, false};
  const auto fresh = [&] { return QuantizeSimply(weight.view(), grid); };
  QuantizedLinear linear = fresh();
  linear.codes[5] = 16;
  EXPECT_THAT(PackLinear("m", linear, DType::kF16), FailsWith("NOT_PACKABLE", HasSubstr("code")));
  linear = fresh();
  linear.scales.data()[3] = 0.1f;
  EXPECT_THAT(PackLinear("m", linear, DType::kF16),
              FailsWith("NOT_PACKABLE", HasSubstr("not exact in F16")));
  linear = fresh();
  linear.zeros.data()[3] = 2.5f;
  EXPECT_THAT(PackLinear("m", linear, DType::kF16), FailsWith("NOT_PACKABLE", HasSubstr("2.5")));
  linear = fresh();
  linear.zeros.data()[3] = 16;
  EXPECT_THAT(PackLinear("m", linear, DType::kF16), FailsWith("NOT_PACKABLE", HasSubstr("range")));
  linear = fresh();
  linear.codes.pop_back();
  EXPECT_THAT(PackLinear("m", linear, DType::kF16), FailsWith("NOT_PACKABLE", HasSubstr("shapes")));
}

class DamagedLinearTest : public ::testing::Test {
 protected:
  DamagedLinearTest() {
    const Matrix weight = RandomWeight(32, 64, 5);
    const auto packed =
        PackLinear("m", QuantizeSimply(weight.view(), {4, 32, false, false}), DType::kF16);
    tensors_ = std::make_unique<Tensors>(*packed);
  }
  void SetShape(int64_t rows, int64_t cols) {
    const int64_t shape[2] = {rows, cols};
    std::memcpy((*tensors_)["m.weight_shape"].bytes.data(), shape, sizeof(shape));
  }
  std::unique_ptr<Tensors> tensors_;
};

TEST_F(DamagedLinearTest, ShapesThatDisagreeAreRefused) {
  ASSERT_OK(tensors_->Find());
  const std::pair<int64_t, int64_t> bad_shapes[] = {{33, 64},     {32, 63}, {32, -64},
                                                    {32, 0},      {32, 96}, {32, int64_t{1} << 62},
                                                    {32, 32 * 7}, {-1, 64}};
  for (const auto& [rows, cols] : bad_shapes) {
    SetShape(rows, cols);
    EXPECT_THAT(tensors_->Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_packed")))
        << rows << " " << cols;
  }
}

TEST_F(DamagedLinearTest, ScalesAndZerosMustMatchTheCodes) {
  (*tensors_)["m.weight_scale"].spec.shape = {16, 4};
  EXPECT_THAT(tensors_->Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_scale")));
  (*tensors_)["m.weight_scale"].spec.shape = {32, 2};
  (*tensors_)["m.weight_zero_point"].spec.shape = {2, 4};
  EXPECT_THAT(tensors_->Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_zero_point")));
  tensors_->Erase("m.weight_scale");
  EXPECT_THAT(tensors_->Find(), FailsWith("TENSOR_MISSING", HasSubstr("weight_scale")));
}

TEST_F(DamagedLinearTest, StoredOrderIsNotRead) {
  (*tensors_)["m.weight_g_idx"] = {{"m.weight_g_idx", DType::kI32, {0}}, ""};
  EXPECT_THAT(tensors_->Find(), FailsWith("QUANT_FORMAT_UNSUPPORTED", HasSubstr("g_idx")));
}

TEST_F(DamagedLinearTest, AScaleThatIsNotFiniteIsRefused) {
  (*tensors_)["m.weight_scale"].bytes.replace(2, 2, "\xff\x7f");  // NaN at index 1
  LWQ_ASSERT_OK_AND_ASSIGN(StoredLinear stored, tensors_->Find());
  EXPECT_THAT(UnpackLinear("m", stored),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("first at index 1")));
  Matrix out(32, 64);
  EXPECT_THAT(DequantizeStored("m", stored, out.view()), FailsWith("NON_FINITE_WEIGHTS", _));
}

}  // namespace
}  // namespace lwq
