// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 with a scale in F16 and, in the _1 types, a minimum.
#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

constexpr int kBlock = 32;
constexpr auto kQ4_0Levels = EvenLevels<-8, 16>();
constexpr auto kQ4_1Levels = EvenLevels<0, 16>();
constexpr auto kQ5_0Levels = EvenLevels<-16, 32>();
constexpr auto kQ5_1Levels = EvenLevels<0, 32>();
constexpr auto kQ8_0Levels = EvenLevels<-128, 256>();

// Files hold what is added, blocks what is subtracted. Flipping the sign bit is exact.
constexpr uint16_t Negated(uint16_t half) { return half ^ 0x8000u; }

void PackFifthBits(const uint8_t* codes, uint8_t* bytes) {
  for (int b = 0; b < kBlock / 8; ++b) {
    int bits = 0;
    for (int i = 0; i < 8; ++i) bits |= (codes[8 * b + i] >> 4 & 1) << i;
    bytes[b] = static_cast<uint8_t>(bits);
  }
}
void UnpackFifthBits(const uint8_t* bytes, uint8_t* codes) {
  for (int i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | (bytes[i / 8] >> (i % 8) & 1) << 4);
  }
}

// What the unpack functions of this file have in common: the scale, and no sub-blocks.
void UnpackScale(const uint8_t* bytes, GgufBlock* block) {
  block->scale = LoadU16(bytes);
  block->min = 0;
  block->sub_scales[0] = 1;
  block->sub_mins[0] = 0;
}
void UnpackScaleAndMin(const uint8_t* bytes, GgufBlock* block) {
  UnpackScale(bytes, block);
  block->min = Negated(LoadU16(bytes + 2));
  block->sub_mins[0] = 1;
}

void PackQ4_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  PackNibbles(block.codes, kBlock / 2, bytes + 2);
}
void UnpackQ4_0(const uint8_t* bytes, GgufBlock* block) {
  UnpackScale(bytes, block);
  UnpackNibbles(bytes + 2, kBlock / 2, block->codes);
}

void PackQ4_1(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(Negated(block.min), bytes + 2);
  PackNibbles(block.codes, kBlock / 2, bytes + 4);
}
void UnpackQ4_1(const uint8_t* bytes, GgufBlock* block) {
  UnpackScaleAndMin(bytes, block);
  UnpackNibbles(bytes + 4, kBlock / 2, block->codes);
}

void PackQ5_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  PackFifthBits(block.codes, bytes + 2);
  PackNibbles(block.codes, kBlock / 2, bytes + 6);
}
void UnpackQ5_0(const uint8_t* bytes, GgufBlock* block) {
  UnpackScale(bytes, block);
  UnpackNibbles(bytes + 6, kBlock / 2, block->codes);
  UnpackFifthBits(bytes + 2, block->codes);
}

void PackQ5_1(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(Negated(block.min), bytes + 2);
  PackFifthBits(block.codes, bytes + 4);
  PackNibbles(block.codes, kBlock / 2, bytes + 8);
}
void UnpackQ5_1(const uint8_t* bytes, GgufBlock* block) {
  UnpackScaleAndMin(bytes, block);
  UnpackNibbles(bytes + 8, kBlock / 2, block->codes);
  UnpackFifthBits(bytes + 4, block->codes);
}

// Codes are levels + 128; files hold the levels as signed bytes.
void PackQ8_0(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  for (int i = 0; i < kBlock; ++i) bytes[2 + i] = block.codes[i] ^ 0x80u;
}
void UnpackQ8_0(const uint8_t* bytes, GgufBlock* block) {
  UnpackScale(bytes, block);
  for (int i = 0; i < kBlock; ++i) block->codes[i] = bytes[2 + i] ^ 0x80u;
}

constexpr GgufBlockShape kQ4_0 = {.levels = kQ4_0Levels, .pack = &PackQ4_0, .unpack = &UnpackQ4_0};
constexpr GgufBlockShape kQ4_1 = {.levels = kQ4_1Levels,
                                  .max_sub_min = 1,
                                  .min_has_sign = true,
                                  .pack = &PackQ4_1,
                                  .unpack = &UnpackQ4_1};
constexpr GgufBlockShape kQ5_0 = {.levels = kQ5_0Levels, .pack = &PackQ5_0, .unpack = &UnpackQ5_0};
constexpr GgufBlockShape kQ5_1 = {.levels = kQ5_1Levels,
                                  .max_sub_min = 1,
                                  .min_has_sign = true,
                                  .pack = &PackQ5_1,
                                  .unpack = &UnpackQ5_1};
constexpr GgufBlockShape kQ8_0 = {.levels = kQ8_0Levels, .pack = &PackQ8_0, .unpack = &UnpackQ8_0};

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
