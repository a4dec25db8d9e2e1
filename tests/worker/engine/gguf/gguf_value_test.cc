#include "worker/engine/gguf/gguf_value.h"

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/hex_vectors.h"

namespace lwq {
namespace {

TEST(GgufValueTest, ValuesAreTypedLittleEndianBytes) {
  const struct {
    GgufValue value;
    const char* hex;
  } cases[] = {{uint8_t{200}, "00000000c8"},
               {int8_t{-2}, "01000000fe"},
               {uint16_t{0x1234}, "020000003412"},
               {int16_t{-2}, "03000000feff"},
               {uint32_t{0x12345678}, "0400000078563412"},
               {int32_t{-2}, "05000000feffffff"},
               {1.0f, "060000000000803f"},
               {true, "0700000001"},
               {std::string("ab"), "0800000002000000000000006162"},
               {uint64_t{0x0102030405060708}, "0a0000000807060504030201"},
               {int64_t{-2}, "0b000000feffffffffffffff"},
               {1.0, "0c000000000000000000f03f"},
               {std::vector<bool>{true, false}, "090000000700000002000000000000000100"},
               {std::vector<uint16_t>{1, 2}, "0900000002000000020000000000000001000200"},
               {std::vector<std::string>{"a", ""},
                "09000000080000000200000000000000"
                "010000000000000061"
                "0000000000000000"}};
  for (const auto& [value, hex] : cases) {
    std::string bytes;
    AppendGgufValue(value, &bytes);
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end()), testing::FromHex(hex)) << hex;
  }
}

TEST(GgufValueTest, MetadataKeepsOrderAndReplaces) {
  GgufMetadata metadata;
  metadata.Set("b", uint32_t{1});
  metadata.Set("a", true);
  metadata.Set("b", std::string("x"));
  ASSERT_EQ(metadata.entries().size(), 2u);
  EXPECT_EQ(metadata.entries()[0].first, "b");
  ASSERT_NE(metadata.Get<std::string>("b"), nullptr);
  EXPECT_EQ(*metadata.Get<std::string>("b"), "x");
  EXPECT_EQ(metadata.Get<uint32_t>("b"), nullptr);
  EXPECT_EQ(metadata.Find("c"), nullptr);
}

}  // namespace
}  // namespace lwq
