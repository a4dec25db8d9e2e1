// Golden blocks: artifact-formats E.9, made there by an independent encoder.
#include "worker/engine/artifact/grid_to_gguf.h"

#include <cstring>

#include "tests/testing/status_matchers.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

struct Linear {
  EncodedLinear encoded;
  StoredLinear stored;
};

// 32 rows of `codes`, one scale a row.
Linear Make(const GridFormat& format, const std::vector<int>& codes, float scale, float zero = 0) {
  GridCodes grid;
  grid.out_features = 32;
  grid.in_features = static_cast<int64_t>(codes.size());
  grid.scales = Matrix(32, format.NumGroups(grid.in_features));
  if (!format.symmetric()) grid.zeros = Matrix(32, grid.scales.cols());
  for (int64_t r = 0; r < 32; ++r) {
    for (const int code : codes) grid.codes.push_back(static_cast<uint8_t>(code));
    for (int64_t g = 0; g < grid.scales.cols(); ++g) {
      grid.scales.Row(r)[g] = scale * static_cast<float>(g + 1);
      if (!format.symmetric()) grid.zeros.Row(r)[g] = zero;
    }
  }
  Linear linear{format.Encode("m", grid, DType::kBF16).value(),
                {&format, 32, grid.in_features, {}}};
  for (const EncodedPart& part : linear.encoded) {
    linear.stored.parts.push_back(
        {part.spec.dtype,
         part.spec.shape,
         {reinterpret_cast<const uint8_t*>(part.bytes.data()), part.bytes.size()}});
  }
  return linear;
}

std::string Hex(const std::string& bytes, size_t count) {
  std::string hex;
  for (size_t i = 0; i < count; ++i) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    const auto byte = static_cast<uint8_t>(bytes[i]);
    hex += {kDigits[byte >> 4], kDigits[byte & 15], ' '};
  }
  return hex;
}

template <typename F>
std::vector<int> Codes(F code) {
  std::vector<int> codes;
  for (int j = 0; j < 32; ++j) codes.push_back(code(j));
  return codes;
}

TEST(GridToGgufTest, GoldenBlocks) {
  const auto block = [](int bits, const std::vector<int>& codes, size_t bytes) {
    const Linear linear = Make(*GridFormat::Find(bits, 0, true), codes, 0.25f);
    return Hex(EncodeAsGguf("m", linear.stored).value()[0].bytes, bytes);
  };
  EXPECT_EQ(block(4, Codes([](int j) { return j % 16; }), 18),
            "00 34 00 11 22 33 44 55 66 77 88 99 AA BB CC DD EE FF ");
  EXPECT_EQ(block(5, Codes([](int j) { return j; }), 22),
            "00 34 00 00 FF FF 00 11 22 33 44 55 66 77 88 99 AA BB CC DD EE FF ");
  EXPECT_EQ(block(8, Codes([](int j) { return 128 + (j < 16 ? j : 15 - j); }), 34),
            "00 34 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F "
            "FF FE FD FC FB FA F9 F8 F7 F6 F5 F4 F3 F2 F1 F0 ");
}

// Every width, groups of several blocks, zero points: the values of the blocks are the grid's.
TEST(GridToGgufTest, TheValuesAreTheSame) {
  for (const auto& [bits, symmetric] : std::vector<std::pair<int, bool>>{
           {1, true}, {2, true}, {3, true}, {4, true}, {5, true}, {6, true}, {7, true}, {8, true},
           {2, false}, {3, false}, {4, false}, {5, false}, {7, false}}) {
    const GridFormat& format = *GridFormat::Find(bits, 64, symmetric);
    std::vector<int> codes;
    for (int k = 0; k < 128; ++k) codes.push_back((5 * k + k / 7) % (1 << bits));
    const float zero = static_cast<float>((1 << bits) - 1);
    const Linear linear = Make(format, codes, -0.375f, zero);
    const GgufFormat& blocks = *GgufFormatOf(format);
    LWQ_ASSERT_OK_AND_ASSIGN(const EncodedLinear encoded, EncodeAsGguf("m", linear.stored));
    const TensorView view = {encoded[0].spec.dtype,
                             encoded[0].spec.shape,
                             {reinterpret_cast<const uint8_t*>(encoded[0].bytes.data()),
                              encoded[0].bytes.size()}};
    Matrix a(32, 128), b(32, 128);
    ASSERT_OK(DequantizeLinear("m", linear.stored, a.view()));
    ASSERT_OK(DequantizeLinear("m", {&blocks, 32, 128, {view}}, b.view()));
    EXPECT_TRUE(std::equal(a.data(), a.data() + a.size(), b.data())) << format.id();
  }
}

TEST(GridToGgufTest, WhatHasNoTypeHasNone) {
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(8, 32, false)), nullptr);
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(4, 16, true)), nullptr);
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(4, 128, true))->type().type, GgufType::kQ4_0);
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(3, 0, true))->type().type, GgufType::kQ4_0);
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(4, 0, false))->type().type, GgufType::kQ5_0);
  EXPECT_EQ(GgufFormatOf(*GridFormat::Find(6, 0, true))->type().type, GgufType::kQ8_0);
}

TEST(GridToGgufTest, AScaleThatF16DoesNotHaveIsRefused) {
  const Linear linear =
      Make(*GridFormat::Find(4, 0, true), Codes([](int) { return 1; }), 0x1p-30f);
  EXPECT_THAT(EncodeAsGguf("m", linear.stored), FailsWith("FORMAT_UNSUPPORTED", HasSubstr("F16")));
}

}  // namespace
}  // namespace lwq
