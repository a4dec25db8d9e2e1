#include "worker/engine/gguf/gguf_layout.h"

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/hex_vectors.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

std::string Bytes(const std::string& hex) {
  const std::vector<uint8_t> bytes = testing::FromHex(hex);
  return {bytes.begin(), bytes.end()};
}

// docs/formats/gguf.md, and a tensor whose numbers are easy to tell apart.
TEST(GgufLayoutTest, HeaderEqualsTheWrittenOutBytes) {
  GgufMetadata metadata;
  metadata.Set("general.quantization_version", uint32_t{2});
  LWQ_ASSERT_OK_AND_ASSIGN(
      const GgufLayout layout,
      LayOutGguf(metadata, {{"a", GgufType::kQ8_0, {3, 64}}, {"bc", GgufType::kF32, {5}}}));
  const std::string expected = Bytes(
                                   "47475546"
                                   "03000000"
                                   "0200000000000000"
                                   "0100000000000000"
                                   "1c00000000000000") +
                               "general.quantization_version" + Bytes("0400000002000000") +
                               // "a": 2 dimensions 64 and 3, type 8, offset 0
                               Bytes(
                                   "010000000000000061"
                                   "02000000"
                                   "4000000000000000"
                                   "0300000000000000"
                                   "08000000"
                                   "0000000000000000") +
                               // "bc": 3 * 2 blocks of 34 bytes before it, 204, padded to 224
                               Bytes(
                                   "02000000000000006263"
                                   "01000000"
                                   "0500000000000000"
                                   "00000000"
                                   "e000000000000000");
  ASSERT_LT(expected.size(), layout.header.size());
  EXPECT_EQ(layout.header.substr(0, expected.size()), expected);
  EXPECT_EQ(layout.header.size(), (expected.size() + 31) / 32 * 32);
  EXPECT_EQ(layout.header.substr(expected.size()),
            std::string(layout.header.size() - expected.size(), '\0'));
  EXPECT_THAT(layout.offsets, ::testing::ElementsAre(0, 224));
  EXPECT_EQ(layout.file_bytes, static_cast<int64_t>(layout.header.size()) + 224 + 32);
}

TEST(GgufLayoutTest, AlignmentIsTheMetadatas) {
  GgufMetadata metadata;
  metadata.Set("general.alignment", uint32_t{4096});
  LWQ_ASSERT_OK_AND_ASSIGN(
      const GgufLayout layout,
      LayOutGguf(metadata, {{"a", GgufType::kF16, {1}}, {"b", GgufType::kF16, {1}}}));
  EXPECT_EQ(layout.header.size(), 4096u);
  EXPECT_THAT(layout.offsets, ::testing::ElementsAre(0, 4096));
  EXPECT_EQ(layout.file_bytes, 3 * 4096);
  for (const GgufValue& wrong :
       {GgufValue(uint32_t{0}), GgufValue(uint32_t{48}), GgufValue(uint32_t{1} << 21),
        GgufValue(int32_t{32}), GgufValue(std::string("32"))}) {
    metadata.Set("general.alignment", wrong);
    EXPECT_THAT(LayOutGguf(metadata, {}), FailsWith("GGUF_METADATA", HasSubstr("alignment")));
  }
}

TEST(GgufLayoutTest, RefusesWhatReadersRefuse) {
  const auto lay_out = [](std::vector<GgufTensorSpec> tensors) {
    return LayOutGguf(GgufMetadata(), std::move(tensors)).status();
  };
  EXPECT_OK(lay_out({{std::string(63, 'n'), GgufType::kQ4_K, {1, 2, 3, 256}}}));
  EXPECT_OK(lay_out({{"scalar", GgufType::kF32, {}}}));
  EXPECT_THAT(lay_out({{std::string(64, 'n'), GgufType::kF32, {1}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("this one has 64")));
  EXPECT_THAT(lay_out({{"", GgufType::kF32, {1}}}), FailsWith("GGUF_TENSOR", HasSubstr("name")));
  EXPECT_THAT(lay_out({{"a\nb", GgufType::kF32, {1}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("a\\nb")));
  EXPECT_THAT(
      lay_out({{"t", GgufType::kQ4_K, {256, 255}}}),
      FailsWith("GGUF_TENSOR", HasSubstr("rows of 255 values, Q4_K needs a multiple of 256")));
  EXPECT_THAT(lay_out({{"t", GgufType::kQ4_0, {}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("rows of 1 values")));
  EXPECT_THAT(lay_out({{"t", GgufType::kF32, {1, 0}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("[1, 0]")));
  EXPECT_THAT(lay_out({{"t", GgufType::kF32, {int64_t{1} << 31, int64_t{1} << 31}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("too large")));
  EXPECT_THAT(lay_out({{"t", GgufType::kF32, {1, 1, 1, 1, 1}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("5 dimensions")));
  EXPECT_THAT(lay_out({{"t", GgufType::kF32, {1}}, {"t", GgufType::kF32, {1}}}),
              FailsWith("GGUF_TENSOR", HasSubstr("twice")));
  EXPECT_THAT(lay_out(std::vector<GgufTensorSpec>(
                  {{"a", GgufType::kF32, {int64_t{1} << 58}}, {"b", GgufType::kF32, {1}}})),
              FailsWith("GGUF_TENSOR", HasSubstr("the file would be too large")));

  GgufMetadata metadata;
  metadata.Append("k", uint8_t{1});
  metadata.Append("k", uint8_t{1});
  EXPECT_THAT(LayOutGguf(metadata, {}), FailsWith("GGUF_METADATA", HasSubstr("twice")));
  GgufMetadata long_key;
  long_key.Set(std::string(65536, 'k'), uint8_t{1});
  EXPECT_THAT(LayOutGguf(long_key, {}), FailsWith("GGUF_METADATA", HasSubstr("65536")));
}

}  // namespace
}  // namespace lwq
