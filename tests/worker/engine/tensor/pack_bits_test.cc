#include "worker/engine/tensor/pack_bits.h"

#include <cstring>
#include <random>
#include <vector>

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

std::vector<uint32_t> Pack(const std::vector<uint8_t>& codes, int bits) {
  std::vector<uint32_t> words(
      static_cast<size_t>(PackedWords(static_cast<int64_t>(codes.size()), bits)), 0xdeadbeef);
  PackBits(codes.data(), static_cast<int64_t>(codes.size()), bits,
           reinterpret_cast<uint8_t*>(words.data()));
  return words;
}

// docs/formats/compressed_tensors.md, "Golden words".
TEST(PackBitsTest, EqualsTheGoldenWords) {
  using ::testing::ElementsAre;
  EXPECT_THAT(Pack({0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, 2), ElementsAre(0xE4E4E4E4u));
  EXPECT_THAT(Pack({0, 1, 2, 3, 4, 5, 6, 7}, 4), ElementsAre(0x76543210u));
  EXPECT_THAT(Pack({0, 1, 2, 3}, 8), ElementsAre(0x03020100u));
  EXPECT_THAT(Pack({127, 128, 255, 1}, 8), ElementsAre(0x01FF807Fu));
  std::vector<uint8_t> octal(32);
  for (size_t j = 0; j < octal.size(); ++j) octal[j] = static_cast<uint8_t>(j % 8);
  EXPECT_THAT(Pack(octal, 3), ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
}

// An independent statement of the format: bit i of code j is bit j * bits + i of the stream.
TEST(PackBitsTest, EveryWidthAndLengthFollowsTheDefinitionAndComesBack) {
  std::mt19937 random(1);
  for (int bits = 1; bits <= 8; ++bits) {
    for (int count = 0; count <= 70; ++count) {
      std::vector<uint8_t> codes(static_cast<size_t>(count));
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random() & ((1u << bits) - 1));
      const std::vector<uint32_t> words = Pack(codes, bits);
      std::vector<uint32_t> expected(words.size(), 0);
      for (int j = 0; j < count; ++j) {
        for (int i = 0; i < bits; ++i) {
          const int position = j * bits + i;
          const uint32_t bit = (codes[static_cast<size_t>(j)] >> i) & 1u;
          expected[static_cast<size_t>(position / 32)] |= bit << (position % 32);
        }
      }
      ASSERT_EQ(words, expected) << bits << " bits, " << count << " codes";
      std::vector<uint8_t> back(codes.size(), 0xee);
      UnpackBits(reinterpret_cast<const uint8_t*>(words.data()), count, bits, back.data());
      ASSERT_EQ(back, codes) << bits << " bits, " << count << " codes";
    }
  }
}

TEST(PackBitsTest, CodesTooLargeDoNotSpillIntoTheirNeighbours) {
  EXPECT_THAT(Pack({0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0}, 4), ::testing::ElementsAre(0x0F0F0F0Fu));
}

// tests/golden/compressed_tensors/record.py: what the compressed-tensors library itself packs,
// along rows (weights) and along columns (zero points).
TEST(PackBitsTest, EqualsTheLibrarysRecordedStreams) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string text,
      ReadFile(LWQ_SOURCE_DIR "/tests/golden/compressed_tensors/packed_streams.json", 1 << 20));
  const nlohmann::json cases = nlohmann::json::parse(text);
  ASSERT_EQ(cases.size(), 8u);
  for (const nlohmann::json& one : cases) {
    const int bits = one["bits"];
    const size_t rows = one["rows"];
    const size_t cols = one["cols"];
    const std::vector<uint8_t> codes = one["codes"];
    std::vector<int32_t> by_row;
    for (size_t r = 0; r < rows; ++r) {
      const auto begin = codes.begin() + static_cast<int64_t>(r * cols);
      for (uint32_t word : Pack({begin, begin + static_cast<int64_t>(cols)}, bits)) {
        by_row.push_back(static_cast<int32_t>(word));
      }
    }
    EXPECT_EQ(by_row, one["row_words"].get<std::vector<int32_t>>()) << bits;
    const std::vector<int32_t> by_column = one["column_words"];
    const size_t words = one["column_words_shape"][0];
    for (size_t c = 0; c < cols; ++c) {
      std::vector<uint8_t> column;
      for (size_t r = 0; r < rows; ++r) column.push_back(codes[r * cols + c]);
      const std::vector<uint32_t> packed = Pack(column, bits);
      ASSERT_EQ(packed.size(), words);
      for (size_t w = 0; w < words; ++w) {
        EXPECT_EQ(static_cast<int32_t>(packed[w]), by_column[w * cols + c]) << bits;
      }
    }
  }
}

}  // namespace
}  // namespace lwq
