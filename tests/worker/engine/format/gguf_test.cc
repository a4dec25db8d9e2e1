#include "worker/engine/format/gguf.h"

#include <cstring>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/gguf/block_fit.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

const GgufFormat& Format(absl::string_view id) { return *(*FindWeightFormat(id))->gguf(); }

TEST(GgufFormatTest, EveryIntegerTypeIsAFormatByItsNameInLowerCase) {
  int found = 0;
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape == nullptr) continue;
    const GgufFormat* format = GgufFormat::Find(*type);
    EXPECT_EQ(&format->type(), type);
    LWQ_ASSERT_OK_AND_ASSIGN(const WeightFormat* by_id, FindWeightFormat(format->id()));
    EXPECT_EQ(by_id, format);
    EXPECT_EQ(format->label(), type->name);
    EXPECT_FALSE(format->dense());
    ++found;
  }
  EXPECT_EQ(found, 17);
  EXPECT_EQ(Format("gguf-q4_k").type().name, "Q4_K");
  for (const char* id : {"gguf-Q4_K", "gguf-f16", "gguf-", "q4_k"}) {
    EXPECT_THAT(FindWeightFormat(id), FailsWith("FORMAT_UNKNOWN", HasSubstr("gguf-q4_k"))) << id;
  }
}

TEST(GgufFormatTest, TakesRowsOfWholeBlocksAndCountsTheirBytes) {
  const GgufFormat& q4_k = Format("gguf-q4_k");
  EXPECT_OK(q4_k.Accepts(7, 512));
  EXPECT_THAT(q4_k.Accepts(7, 576), FailsWith("FORMAT_SHAPE", HasSubstr("576")));
  EXPECT_OK(Format("gguf-iq4_nl").Accepts(7, 576));
  const std::vector<PartSpec> parts = q4_k.Parts(7, 512, DType::kBF16);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].name, "blocks");
  EXPECT_EQ(parts[0].dtype, DType::kU8);
  EXPECT_EQ(parts[0].shape, (std::vector<int64_t>{7, 2 * 144}));
  EXPECT_EQ(q4_k.PartBytes(7, 512, DType::kF32), 7 * 2 * 144);
}

TEST(GgufFormatTest, DequantizesRowsFromAnyOn) {
  constexpr int64_t kRows = 3, kCols = 512;
  const GgufFormat& format = Format("gguf-q3_k");
  const size_t row_bytes = static_cast<size_t>(format.type().RowBytes(kCols));
  std::string bytes(kRows * row_bytes, '\0');
  Matrix weights(kRows, kCols), expected(kRows, kCols);
  for (int64_t i = 0; i < weights.size(); ++i) {
    weights.data()[i] = static_cast<float>((i * 7919) % 201 - 100) / 300.0f;
  }
  for (int64_t r = 0; r < kRows; ++r) {
    uint8_t* row = reinterpret_cast<uint8_t*>(bytes.data()) + static_cast<size_t>(r) * row_bytes;
    QuantizeRow(format.type(), GgufFit::kReference, {weights.Row(r), static_cast<size_t>(kCols)},
                {}, row);
    DequantizeRow(format.type(), row, kCols, expected.Row(r));
  }
  const TensorView part{DType::kU8,
                        {kRows, static_cast<int64_t>(row_bytes)},
                        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}};
  Matrix out(2, kCols);
  EXPECT_OK(format.Dequantize("m", {part}, 1, out.view()));
  EXPECT_EQ(std::memcmp(out.data(), expected.Row(1), sizeof(float) * 2 * kCols), 0);
  // The F16 scale of the last block becomes infinite.
  bytes[bytes.size() - 1] = '\x7c';
  bytes[bytes.size() - 2] = '\0';
  EXPECT_OK(format.Dequantize("m", {part}, 0, out.view()));
  EXPECT_THAT(format.Dequantize("m", {part}, 1, out.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("row 2, column 256")));
}

}  // namespace
}  // namespace lwq
