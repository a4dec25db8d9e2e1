#include "worker/engine/gguf/block_type.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/hex_vectors.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using testing::FloatsFromHex;
using testing::FromHex;

std::vector<uint8_t> Packed(const GgufTypeDef& type, const GgufBlock& block) {
  std::vector<uint8_t> bytes(static_cast<size_t>(type.block_bytes), 0xee);
  type.shape->pack(block, bytes.data());
  return bytes;
}

// A block with the scale 0.25 and one code.
GgufBlock Quarter() {
  GgufBlock block;
  block.scale = 0x3400;
  block.sub_scales[0] = 1;
  return block;
}

TEST(BlockTypeTest, SizesAreThoseOfTheFormat) {
  struct Row {
    const char* name;
    uint32_t number;
    int block_size, block_bytes;
  };
  const Row rows[] = {{"F32", 0, 1, 4},         {"F16", 1, 1, 2},        {"BF16", 30, 1, 2},
                      {"Q4_0", 2, 32, 18},      {"Q4_1", 3, 32, 20},     {"Q5_0", 6, 32, 22},
                      {"Q5_1", 7, 32, 24},      {"Q8_0", 8, 32, 34},     {"Q2_K", 10, 256, 84},
                      {"Q3_K", 11, 256, 110},   {"Q4_K", 12, 256, 144},  {"Q5_K", 13, 256, 176},
                      {"Q6_K", 14, 256, 210},   {"IQ4_NL", 20, 32, 18},  {"IQ4_XS", 23, 256, 136},
                      {"IQ2_XXS", 16, 256, 66}, {"IQ2_XS", 17, 256, 74}, {"IQ2_S", 22, 256, 82},
                      {"IQ3_XXS", 18, 256, 98}, {"IQ3_S", 21, 256, 110}};
  EXPECT_EQ(GgufTypes().size(), std::size(rows));
  for (const Row& row : rows) {
    const GgufTypeDef* type = FindGgufType(row.name);
    ASSERT_NE(type, nullptr) << row.name;
    EXPECT_EQ(FindGgufType(row.number), type) << row.name;
    EXPECT_EQ(&DefOf(type->type), type) << row.name;
    EXPECT_EQ(type->block_size, row.block_size) << row.name;
    EXPECT_EQ(type->block_bytes, row.block_bytes) << row.name;
    EXPECT_EQ(type->RowBytes(row.block_size * 3), row.block_bytes * 3) << row.name;
  }
  EXPECT_EQ(FindGgufType(4u), nullptr);
  EXPECT_EQ(FindGgufType("q4_0"), nullptr);
  EXPECT_DOUBLE_EQ(DefOf(GgufType::kQ3_K).bits_per_weight(), 3.4375);
}

// docs/formats/gguf.md, "Worked blocks".
TEST(BlockTypeTest, SmallBlocksEqualTheWorkedBytes) {
  GgufBlock block = Quarter();
  for (int i = 0; i < 32; ++i) block.codes[i] = static_cast<uint8_t>(i % 16);
  EXPECT_THAT(Packed(DefOf(GgufType::kQ4_0), block), ElementsAreArray(FromHex("00340011223344556677"
                                                                              "8899aabbccddeeff")));
  block.min = 0x3a00;  // 3 * 0.25, subtracted
  block.sub_mins[0] = 1;
  EXPECT_THAT(Packed(DefOf(GgufType::kQ4_1), block),
              ElementsAreArray(FromHex("003400ba0011223344556677"
                                       "8899aabbccddeeff")));
  block = Quarter();
  for (int i = 0; i < 32; ++i) block.codes[i] = static_cast<uint8_t>(i);
  EXPECT_THAT(Packed(DefOf(GgufType::kQ5_0), block),
              ElementsAreArray(FromHex("00340000ffff0011223344556677"
                                       "8899aabbccddeeff")));
  for (int i = 0; i < 32; ++i) block.codes[i] = static_cast<uint8_t>(128 + (i < 16 ? i : 15 - i));
  EXPECT_THAT(Packed(DefOf(GgufType::kQ8_0), block),
              ElementsAreArray(FromHex("0034000102030405060708090a0b0c0d0e0f"
                                       "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0")));
}

TEST(BlockTypeTest, SubBlockScalesEqualTheWorkedBytes) {
  GgufBlock block;
  for (int j = 0; j < 16; ++j) block.sub_scales[j] = 1;  // stored as 33
  std::vector<uint8_t> bytes = Packed(DefOf(GgufType::kQ3_K), block);
  EXPECT_THAT(std::vector<uint8_t>(bytes.begin() + 96, bytes.begin() + 108),
              ElementsAreArray(FromHex("1111111111111111aaaaaaaa")));

  for (int j = 0; j < 8; ++j) block.sub_mins[j] = 8;
  bytes = Packed(DefOf(GgufType::kQ4_K), block);
  EXPECT_THAT(std::vector<uint8_t>(bytes.begin() + 4, bytes.begin() + 16),
              ElementsAreArray(FromHex("010101010808080881818181")));
  for (int j = 0; j < 8; ++j) {
    block.sub_scales[j] = static_cast<int8_t>(5 * (j + 1));
    block.sub_mins[j] = static_cast<uint8_t>(5 * (j + 1));
  }
  for (GgufType type : {GgufType::kQ4_K, GgufType::kQ5_K}) {
    bytes = Packed(DefOf(type), block);
    EXPECT_THAT(std::vector<uint8_t>(bytes.begin() + 4, bytes.begin() + 16),
                ElementsAreArray(FromHex("454a8f94454a8f9499ee3388")));
  }

  block = GgufBlock();
  block.scale = block.min = 0x3400;
  for (int j = 0; j < 16; ++j) {
    block.sub_scales[j] = 1;
    block.sub_mins[j] = 2;
  }
  bytes = Packed(DefOf(GgufType::kQ2_K), block);
  EXPECT_THAT(std::vector<uint8_t>(bytes.begin(), bytes.begin() + 16), ::testing::Each(0x21));
  EXPECT_THAT(std::vector<uint8_t>(bytes.begin() + 80, bytes.end()),
              ElementsAre(0x00, 0x34, 0x00, 0x34));
}

// tests/golden/gguf/record.py. A NaN has no agreed payload.
TEST(BlockTypeTest, ValuesEqualTheRecordedOnesToTheBit) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text,
                           ReadFile(LWQ_SOURCE_DIR "/tests/golden/gguf/blocks.json", 1 << 20));
  std::set<std::string> seen;
  for (const nlohmann::json& one : nlohmann::json::parse(text)) {
    const GgufTypeDef* type = FindGgufType(one["type"].get<std::string>());
    ASSERT_NE(type, nullptr) << one["type"];
    seen.insert(one["type"]);
    const std::vector<uint8_t> bytes = FromHex(one["bytes"]);
    const std::vector<float> expected = FloatsFromHex(one["values"]);
    std::vector<float> values(bytes.size() / static_cast<size_t>(type->block_bytes) *
                              static_cast<size_t>(type->block_size));
    ASSERT_EQ(values.size(), expected.size());
    DequantizeRow(*type, bytes.data(), static_cast<int64_t>(values.size()), values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(values[i])) << type->name << " value " << i;
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i]))
            << type->name << " value " << i;
      }
    }
  }
  EXPECT_EQ(seen.size(), GgufTypes().size());
}

// Every bit of a block belongs to some part: bytes -> parts -> bytes loses nothing.
TEST(BlockTypeTest, UnpackedBlocksPackToTheSameBytes) {
  std::mt19937 random(3);
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape == nullptr) continue;
    for (int round = 0; round < 200; ++round) {
      std::vector<uint8_t> bytes(static_cast<size_t>(type->block_bytes));
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      GgufBlock block;
      std::fill_n(block.codes, kMaxGgufBlock, uint8_t{0xee});  // whatever was there before
      std::fill_n(block.sub_mins, kMaxGgufSubBlocks, uint8_t{0xee});
      UnpackBlock(*type, bytes.data(), &block);
      ASSERT_EQ(Packed(*type, block), bytes) << type->name;
      for (int i = 0; i < type->block_size; ++i) {
        ASSERT_LT(block.codes[i], type->shape->levels.size()) << type->name;
      }
      for (int j = 0; j < type->shape->sub_blocks; ++j) {
        ASSERT_GE(block.sub_scales[j], type->shape->min_sub_scale) << type->name;
        ASSERT_LE(block.sub_scales[j], type->shape->max_sub_scale) << type->name;
        ASSERT_LE(block.sub_mins[j], type->shape->max_sub_min) << type->name;
      }
    }
  }
}

TEST(BlockTypeTest, FloatsRoundToNearestAndComeBack) {
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape != nullptr) continue;
    for (float value : {0.0f, -1.5f, 1.0f / 3, 65504.0f, 1e-7f}) {
      uint8_t bytes[4];
      type->store(value, bytes);
      float back = 0;
      DequantizeRow(*type, bytes, 1, &back);
      // Half a unit in the last place: 2^-11 of the value, or of F16's smallest normal, in F16;
      // 2^-9 in BF16.
      const float bound = type->type == GgufType::kF32 ? 0
                          : type->type == GgufType::kF16
                              ? 0x1p-11f * std::max(std::abs(value), 0x1p-14f)
                              : 0x1p-9f * std::abs(value);
      EXPECT_LE(std::abs(back - value), bound) << type->name << " " << value;
    }
  }
}

}  // namespace
}  // namespace lwq
