#include "worker/engine/format/grid.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

// Codes, scales and zeros that any grid can have.
GridCodes SomeCodes(const GridFormat& format, int64_t rows, int64_t cols) {
  GridCodes linear;
  linear.out_features = rows;
  linear.in_features = cols;
  for (int64_t i = 0; i < rows * cols; ++i) {
    linear.codes.push_back(static_cast<uint8_t>((i * 37 + i / 5) & ((1 << format.bits()) - 1)));
  }
  const int64_t groups = format.NumGroups(cols);
  linear.scales = Matrix(rows, groups);
  if (!format.symmetric()) linear.zeros = Matrix(rows, groups);
  for (int64_t i = 0; i < rows * groups; ++i) {
    linear.scales.data()[i] =
        (i % 2 == 0 ? 1.0f : -1.0f) * 0x1p-8f * static_cast<float>(i % 100 + 1);
    if (!format.symmetric()) {
      linear.zeros.data()[i] = static_cast<float>(i & ((1 << format.bits()) - 1));
    }
  }
  return linear;
}

// Views of encoded parts.
StoredLinear Stored(const GridFormat& format, int64_t rows, int64_t cols,
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

void ExpectSameMatrix(const Matrix& a, const Matrix& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a.data()[i], b.data()[i]) << i;
}

void ExpectRoundTrip(const GridFormat& format) {
  SCOPED_TRACE(format.id());
  const GridCodes linear = SomeCodes(format, 96, 256);
  for (DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const EncodedLinear encoded, format.Encode("m", linear, dtype));
    const std::vector<PartSpec> parts = format.Parts(96, 256, dtype);
    ASSERT_EQ(encoded.size(), parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(encoded[i].spec.name, parts[i].name);
      EXPECT_EQ(encoded[i].spec.dtype, parts[i].dtype);
      EXPECT_EQ(static_cast<int64_t>(encoded[i].bytes.size()), parts[i].size_bytes());
    }
    const StoredLinear stored = Stored(format, 96, 256, encoded);
    LWQ_ASSERT_OK_AND_ASSIGN(const GridCodes back, format.Decode("m", stored));
    EXPECT_EQ(back.codes, linear.codes);
    ExpectSameMatrix(back.scales, linear.scales);
    ExpectSameMatrix(back.zeros, linear.zeros);
    // The last rows alone.
    Matrix values(40, 256);
    ASSERT_OK(format.Dequantize("m", stored.parts, 56, values.view()));
    const int64_t columns = 256 / format.NumGroups(256);
    for (int64_t i = 0; i < values.size(); ++i) {
      const int64_t r = 56 + i / 256, k = i % 256;
      const float zero = format.symmetric() ? static_cast<float>(1 << (format.bits() - 1))
                                            : linear.zeros.Row(r)[k / columns];
      const float code = linear.codes[static_cast<size_t>(r * 256 + k)];
      ASSERT_EQ(values.data()[i], linear.scales.Row(r)[k / columns] * (code - zero)) << i;
    }
  }
}

TEST(GridFormatTest, EveryFormatComesBackBitForBit) {
  for (int bits = 1; bits <= GridFormat::kMaxBits; ++bits) {
    for (int64_t group : {int64_t{0}, int64_t{32}, int64_t{128}}) {
      for (bool symmetric : {true, false}) {
        ExpectRoundTrip(*GridFormat::Find(bits, group, symmetric));
      }
    }
  }
}

TEST(GridFormatTest, IdsNameOneFormatEach) {
  LWQ_ASSERT_OK_AND_ASSIGN(const WeightFormat* format, FindWeightFormat("int3-g64-asym"));
  EXPECT_EQ(format, GridFormat::Find(3, 64, false));
  EXPECT_EQ(format->id(), "int3-g64-asym");
  EXPECT_EQ(format->label(), "3-bit in groups of 64 with zero points");
  LWQ_ASSERT_OK_AND_ASSIGN(format, FindWeightFormat("int8-row"));
  EXPECT_EQ(format, GridFormat::Find(8, 0, true));
  LWQ_ASSERT_OK_AND_ASSIGN(format, FindWeightFormat("dense"));
  EXPECT_TRUE(format->dense());
  EXPECT_EQ(format->grid(), nullptr);
  for (const char* bad :
       {"", "int", "int4", "int0-row", "int9-row", "int4-g", "int4-g0", "int4-g-1", "int04-g128",
        "int4-g0128", "INT4-g128", "int4-g128 ", "int4-g99999999", "int4-asym", "dense2"}) {
    EXPECT_THAT(FindWeightFormat(bad), FailsWith("FORMAT_UNKNOWN", HasSubstr("int4-g128"))) << bad;
  }
}

TEST(GridFormatTest, SizesAreWhatTheFormatSays) {
  // 4 bits of codes, 16 / 128 of scales; zero points 4 / 128 more.
  EXPECT_EQ(GridFormat::Find(4, 128, true)->PartBytes(128, 256, DType::kBF16), 128 * 256 * 33 / 64);
  EXPECT_EQ(GridFormat::Find(4, 128, false)->PartBytes(128, 256, DType::kBF16),
            128 * 256 * 33 / 64 + 128);
  EXPECT_EQ(DenseFormat()->PartBytes(3, 5, DType::kF32), 60);
}

TEST(GridFormatTest, ShapesThatItCannotStoreAreRefused) {
  const GridFormat& format = *GridFormat::Find(4, 128, true);
  EXPECT_OK(format.Accepts(64, 256));
  EXPECT_THAT(format.Accepts(64, 576),
              FailsWith("FORMAT_SHAPE", HasSubstr("128 does not divide its in_features 576")));
  EXPECT_THAT(GridFormat::Find(4, 0, true)->Accepts(40, 96),
              FailsWith("FORMAT_SHAPE", HasSubstr("multiples of 32")));
  EXPECT_OK(DenseFormat()->Accepts(7, 9));
}

// The worked examples of the packing: 32 3-bit codes j mod 8, and 4-bit zero points 0..7 of 8 rows.
TEST(GridFormatTest, EqualsTheWorkedExamples) {
  const GridFormat& three = *GridFormat::Find(3, 0, true);
  GridCodes linear;
  linear.out_features = 32;
  linear.in_features = 32;
  for (int j = 0; j < 32 * 32; ++j) linear.codes.push_back(static_cast<uint8_t>(j % 8));
  linear.scales = Matrix(32, 1);
  std::fill_n(linear.scales.data(), 32, 0.5f);
  LWQ_ASSERT_OK_AND_ASSIGN(EncodedLinear encoded, three.Encode("m", linear, DType::kF16));
  uint32_t words[3];
  std::memcpy(words, encoded[0].bytes.data(), sizeof(words));
  EXPECT_THAT(words, ::testing::ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
  EXPECT_EQ(encoded[1].bytes.substr(0, 2), std::string("\x00\x38", 2));

  const GridFormat& four = *GridFormat::Find(4, 0, false);
  linear.codes.assign(32 * 32, 0);
  linear.zeros = Matrix(32, 1);
  for (int r = 0; r < 32; ++r) linear.zeros.data()[r] = static_cast<float>(r % 8);
  LWQ_ASSERT_OK_AND_ASSIGN(encoded, four.Encode("m", linear, DType::kF16));
  EXPECT_EQ(encoded[2].spec.shape, (std::vector<int64_t>{4, 1}));
  EXPECT_EQ(encoded[2].bytes.substr(0, 4), "\x10\x32\x54\x76");
}

TEST(GridFormatTest, WhatCannotBeStoredExactlyIsNotEncoded) {
  const GridFormat& format = *GridFormat::Find(4, 32, false);
  const auto refused = [&](const GridCodes& linear, const char* why) {
    EXPECT_THAT(format.Encode("m", linear, DType::kF16), FailsWith("NOT_PACKABLE", HasSubstr(why)));
  };
  GridCodes linear = SomeCodes(format, 32, 64);
  linear.codes[5] = 16;
  refused(linear, "code");
  linear = SomeCodes(format, 32, 64);
  linear.scales.data()[3] = 0.1f;
  refused(linear, "not exact in F16");
  linear = SomeCodes(format, 32, 64);
  linear.zeros.data()[3] = 2.5f;
  refused(linear, "2.5");
  linear = SomeCodes(format, 32, 64);
  linear.zeros.data()[3] = 16;
  refused(linear, "range");
  linear = SomeCodes(format, 32, 64);
  linear.codes.pop_back();
  refused(linear, "shapes");
}

TEST(GridTest, RoundedInputsAreAFormatOfTheirOwnWithTheSameParts) {
  LWQ_ASSERT_OK_AND_ASSIGN(const WeightFormat* format, FindWeightFormat("int8-row-a8"));
  EXPECT_EQ(format, GridFormat::WithRoundedInputs());
  EXPECT_NE(format, GridFormat::Find(8, 0, true));
  EXPECT_EQ(format->activation_rule(), ActivationRule::kInt8PerToken);
  EXPECT_EQ(GridFormat::Find(8, 0, true)->activation_rule(), ActivationRule::kNone);
  EXPECT_EQ(format->label(), "8-bit by row, inputs too");
  ExpectRoundTrip(*format->grid());
  for (const char* id : {"int4-row-a8", "int8-g128-a8", "int8-row-asym-a8"}) {
    EXPECT_THAT(FindWeightFormat(id), FailsWith("FORMAT_UNKNOWN", HasSubstr(id)));
  }
}

}  // namespace
}  // namespace lwq
