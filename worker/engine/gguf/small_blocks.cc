// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 with a scale in F16 and, in the _1 types, a minimum.
#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

constexpr int kBlockSize = 32;
constexpr auto kQ4_0Levels = EvenLevels<-8, 16>();
constexpr auto kQ4_1Levels = EvenLevels<0, 16>();
constexpr auto kQ5_0Levels = EvenLevels<-16, 32>();
constexpr auto kQ5_1Levels = EvenLevels<0, 32>();
constexpr auto kQ8_0Levels = EvenLevels<-128, 256>();

// Files hold what is added, blocks what is subtracted. Flipping the sign bit is exact.
constexpr uint16_t Negated(uint16_t half) { return half ^ 0x8000u; }

void PackFifthBits(const uint8_t* codes, uint8_t* bytes) {
  for (int b = 0; b < kBlockSize / 8; ++b) {
    int bits = 0;
    for (int i = 0; i < 8; ++i) bits |= (codes[8 * b + i] >> 4 & 1) << i;
    bytes[b] = static_cast<uint8_t>(bits);
  }
}

void PackQ4_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  PackNibbles(block.codes, kBlockSize / 2, bytes + 2);
}

void PackQ4_1(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(Negated(block.min), bytes + 2);
  PackNibbles(block.codes, kBlockSize / 2, bytes + 4);
}

void PackQ5_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  PackFifthBits(block.codes, bytes + 2);
  PackNibbles(block.codes, kBlockSize / 2, bytes + 6);
}

void PackQ5_1(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(Negated(block.min), bytes + 2);
  PackFifthBits(block.codes, bytes + 4);
  PackNibbles(block.codes, kBlockSize / 2, bytes + 8);
}

// Codes are levels + 128; files hold the levels as signed bytes.
void PackQ8_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  for (int i = 0; i < kBlockSize; ++i) bytes[2 + i] = block.codes[i] ^ 0x80u;
}

constexpr BlockLayout LayoutOf(int bytes, int min_at, BitField low, BitField high,
                               int first_level) {
  return {.block_size = kBlockSize,
          .block_bytes = bytes,
          .sub_block_size = kBlockSize,
          .scale_at = 0,
          .min_at = min_at,
          .min_added = min_at > 0,
          .low = low,
          .high = high,
          .first_level = first_level};
}
// Nibbles from a byte on; the fifth bits are a row of bits.
constexpr BitField NibblesAt(int at) { return {.bits = 4, .at = at, .run = kBlockSize / 2}; }
constexpr BitField FifthBits(int at) { return {.bits = 1, .at = at}; }
constexpr BlockLayout kQ4_0Layout = LayoutOf(18, -1, NibblesAt(2), {}, -8);
constexpr BlockLayout kQ4_1Layout = LayoutOf(20, 2, NibblesAt(4), {}, 0);
constexpr BlockLayout kQ5_0Layout = LayoutOf(22, -1, NibblesAt(6), FifthBits(2), -16);
constexpr BlockLayout kQ5_1Layout = LayoutOf(24, 2, NibblesAt(8), FifthBits(4), 0);
constexpr BlockLayout kQ8_0Layout = {.block_size = kBlockSize,
                                     .block_bytes = 34,
                                     .sub_block_size = kBlockSize,
                                     .low = {.bits = 8, .at = 2},
                                     .flipped = 0x80,
                                     .first_level = -128};

constexpr GgufBlockShape kQ4_0 = {.levels = kQ4_0Levels, .pack = &PackQ4_0, .layout = &kQ4_0Layout};
constexpr GgufBlockShape kQ4_1 = {.levels = kQ4_1Levels,
                                  .max_sub_min = 1,
                                  .min_has_sign = true,
                                  .pack = &PackQ4_1,
                                  .layout = &kQ4_1Layout};
constexpr GgufBlockShape kQ5_0 = {.levels = kQ5_0Levels, .pack = &PackQ5_0, .layout = &kQ5_0Layout};
constexpr GgufBlockShape kQ5_1 = {.levels = kQ5_1Levels,
                                  .max_sub_min = 1,
                                  .min_has_sign = true,
                                  .pack = &PackQ5_1,
                                  .layout = &kQ5_1Layout};
constexpr GgufBlockShape kQ8_0 = {.levels = kQ8_0Levels, .pack = &PackQ8_0, .layout = &kQ8_0Layout};

}  // namespace

extern const GgufTypeDef gguf_type_q4_0, gguf_type_q4_1, gguf_type_q5_0, gguf_type_q5_1,
    gguf_type_q8_0;
constinit const GgufTypeDef gguf_type_q4_0 = {
    .type = GgufType::kQ4_0, .name = "Q4_0", .block_size = 32, .block_bytes = 18, .shape = &kQ4_0};
constinit const GgufTypeDef gguf_type_q4_1 = {
    .type = GgufType::kQ4_1, .name = "Q4_1", .block_size = 32, .block_bytes = 20, .shape = &kQ4_1};
constinit const GgufTypeDef gguf_type_q5_0 = {
    .type = GgufType::kQ5_0, .name = "Q5_0", .block_size = 32, .block_bytes = 22, .shape = &kQ5_0};
constinit const GgufTypeDef gguf_type_q5_1 = {
    .type = GgufType::kQ5_1, .name = "Q5_1", .block_size = 32, .block_bytes = 24, .shape = &kQ5_1};
constinit const GgufTypeDef gguf_type_q8_0 = {
    .type = GgufType::kQ8_0, .name = "Q8_0", .block_size = 32, .block_bytes = 34, .shape = &kQ8_0};

}  // namespace lwq
