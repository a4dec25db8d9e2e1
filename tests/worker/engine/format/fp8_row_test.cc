#include "worker/engine/format/fp8_row.h"

#include <cmath>
#include <cstring>

#include "tests/testing/status_matchers.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

StoredLinear Stored(int64_t rows, int64_t cols, const EncodedLinear& encoded) {
  StoredLinear stored{Fp8RowFormat::Find(), rows, cols, {}};
  for (const EncodedPart& part : encoded) {
    stored.parts.push_back(
        {part.spec.dtype,
         part.spec.shape,
         {reinterpret_cast<const uint8_t*>(part.bytes.data()), part.bytes.size()}});
  }
  return stored;
}

// Row 0: the largest is 448 times .5, so the scale is .5 and the codes are those of the halved
// numbers, worked out by hand. Row 1 is nothing. Row 2 has a scale below F16's least with all bits.
TEST(Fp8RowTest, TheLargestOfARowBecomesTheLargestValue) {
  Matrix weight(16, 32);
  std::memset(weight.data(), 0, static_cast<size_t>(weight.size()) * 4);
  const float row[] = {224, -224, 0.5f, 0.53f, 8.5f, 0.0005f};
  std::memcpy(weight.Row(0), row, sizeof(row));
  weight.Row(2)[0] = 0x1p-10f;
  const uint8_t codes[] = {0x7e, 0xfe, 0x38, 0x38, 0x58, 0x01};
  for (const DType source : {DType::kBF16, DType::kF16, DType::kF32}) {
    const EncodedLinear encoded = Fp8RowFormat::Find()->Encode(weight.view(), source);
    ASSERT_EQ(encoded.size(), 2u);
    for (size_t i = 0; i < std::size(codes); ++i) {
      EXPECT_EQ(static_cast<uint8_t>(encoded[0].bytes[i]), codes[i]) << i;
    }
    const StoredLinear stored = Stored(16, 32, encoded);
    ASSERT_OK(CheckParts("m", stored));
    Matrix values(16, 32);
    ASSERT_OK(DequantizeLinear("m", stored, values.view()));
    EXPECT_EQ(values.Row(0)[0], 224);
    EXPECT_EQ(values.Row(0)[4], 8);  // 17 lies between 16 and 18: to even
    EXPECT_EQ(values.Row(1)[0], 0);
    EXPECT_EQ(values.Row(2)[0], 0x1p-10f);
  }
}

TEST(Fp8RowTest, SomeRowsAreReadAloneAndNaNIsRefused) {
  Matrix weight(16, 16);
  for (int64_t i = 0; i < weight.size(); ++i) {
    weight.data()[i] = std::sin(static_cast<float>(i)) * static_cast<float>(1 + i / 16);
  }
  EncodedLinear encoded = Fp8RowFormat::Find()->Encode(weight.view(), DType::kBF16);
  Matrix all(16, 16), some(3, 16);
  const StoredLinear stored = Stored(16, 16, encoded);
  ASSERT_OK(DequantizeLinear("m", stored, all.view()));
  ASSERT_OK(stored.format->Dequantize("m", stored.parts, 5, some.view()));
  EXPECT_EQ(std::memcmp(some.data(), all.Row(5), sizeof(float) * 48), 0);
  for (int64_t i = 0; i < weight.size(); ++i) {
    EXPECT_NEAR(all.data()[i], weight.data()[i], std::abs(weight.data()[i]) / 15 + 1e-3f);
  }
  encoded[0].bytes[17] = 0x7f;
  EXPECT_THAT(DequantizeLinear("m", Stored(16, 16, encoded), all.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("m [1, 1]")));
}

TEST(Fp8RowTest, IsFoundByItsIdAndTakesMultiplesOf16) {
  LWQ_ASSERT_OK_AND_ASSIGN(const WeightFormat* format, FindWeightFormat("fp8-row-a8"));
  EXPECT_EQ(format, Fp8RowFormat::Find());
  EXPECT_EQ(format->activation_rule(), ActivationRule::kFp8PerToken);
  EXPECT_OK(format->Accepts(16, 48));
  EXPECT_THAT(format->Accepts(16, 40), FailsWith("FORMAT_SHAPE", HasSubstr("16")));
  EXPECT_EQ(format->PartBytes(32, 64, DType::kF32), 32 * 64 + 32 * 2);
}

}  // namespace
}  // namespace lwq
