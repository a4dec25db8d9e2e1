// Q2_K to Q6_K: blocks of 256 whose sub-blocks of 16 or 32 have small whole scales (and minima)
// that one scale (and minimum) in F16 multiplies.
#include <algorithm>

#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

constexpr int kBlock = 256;
constexpr auto kQ2Levels = EvenLevels<0, 4>();
constexpr auto kQ3Levels = EvenLevels<-4, 8>();
constexpr auto kQ4Levels = EvenLevels<0, 16>();
constexpr auto kQ5Levels = EvenLevels<0, 32>();
constexpr auto kQ6Levels = EvenLevels<-32, 64>();

// 256 codes of 2 bits: per half of 128 codes 32 bytes; byte l has codes l, l + 32, l + 64, l + 96.
// `shift` says which two bits of a code are meant.
void PackPairs(const uint8_t* codes, int shift, uint8_t* bytes) {
  for (int half = 0; half < 2; ++half, codes += 128, bytes += 32) {
    for (int l = 0; l < 32; ++l) {
      int byte = 0;
      for (int k = 0; k < 4; ++k) byte |= (codes[l + 32 * k] >> shift & 3) << (2 * k);
      bytes[l] = static_cast<uint8_t>(byte);
    }
  }
}

// One bit of each of 256 codes in 32 bytes: bit j of byte l is of code 32 * j + l.
void PackBitPlane(const uint8_t* codes, int bit, uint8_t* bytes) {
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int j = 0; j < 8; ++j) byte |= (codes[32 * j + l] >> bit & 1) << j;
    bytes[l] = static_cast<uint8_t>(byte);
  }
}

// Eight scales and eight minima of 6 bits in 12 bytes (Q4_K, Q5_K): those of sub-blocks 0 to 3
// whole in the low six bits of bytes 0 to 7, whose top two bits are those of sub-blocks 4 to 7; the
// low four bits of these are in bytes 8 to 11.
void PackSixBits(const GgufBlock& block, uint8_t* bytes) {
  for (int j = 0; j < 4; ++j) {
    const int scale = block.sub_scales[j + 4];
    const int min = block.sub_mins[j + 4];
    bytes[j] = static_cast<uint8_t>(block.sub_scales[j] | (scale >> 4) << 6);
    bytes[j + 4] = static_cast<uint8_t>(block.sub_mins[j] | (min >> 4) << 6);
    bytes[j + 8] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

// scales[16] qs[64] d dmin
void PackQ2_K(const GgufBlock& block, uint8_t* bytes) {
  for (int j = 0; j < 16; ++j) {
    bytes[j] = static_cast<uint8_t>(block.sub_scales[j] | block.sub_mins[j] << 4);
  }
  PackPairs(block.codes, 0, bytes + 16);
  StoreU16(block.scale, bytes + 80);
  StoreU16(block.min, bytes + 82);
}

// hmask[32] qs[64] scales[12] d. Scales are stored + 32: four low bits of scale j in byte j % 8,
// two high bits in byte 8 + j % 4.
void PackQ3_K(const GgufBlock& block, uint8_t* bytes) {
  PackBitPlane(block.codes, 2, bytes);
  PackPairs(block.codes, 0, bytes + 32);
  uint8_t* scales = bytes + 96;
  std::fill_n(scales, 12, uint8_t{0});
  for (int j = 0; j < 16; ++j) {
    const int stored = block.sub_scales[j] + 32;
    scales[j % 8] = static_cast<uint8_t>(scales[j % 8] | (stored & 15) << (j / 8 * 4));
    scales[8 + j % 4] = static_cast<uint8_t>(scales[8 + j % 4] | (stored >> 4) << (j / 4 * 2));
  }
  StoreU16(block.scale, bytes + 108);
}

// d dmin scales[12] qs[128]: per 64 codes 32 bytes of nibbles.
void PackQ4_K(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(block.min, bytes + 2);
  PackSixBits(block, bytes + 4);
  for (int c = 0; c < 4; ++c) PackNibbles(block.codes + 64 * c, 32, bytes + 16 + 32 * c);
}

// d dmin scales[12] qh[32] qs[128]
void PackQ5_K(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  StoreU16(block.min, bytes + 2);
  PackSixBits(block, bytes + 4);
  PackBitPlane(block.codes, 4, bytes + 16);
  for (int c = 0; c < 4; ++c) PackNibbles(block.codes + 64 * c, 32, bytes + 48 + 32 * c);
}

// ql[128] qh[64] scales[16] d: per 128 codes 64 bytes of nibbles and 32 of pairs.
void PackQ6_K(const GgufBlock& block, uint8_t* bytes) {
  for (int h = 0; h < 2; ++h) PackNibbles(block.codes + 128 * h, 64, bytes + 64 * h);
  PackPairs(block.codes, 4, bytes + 128);
  for (int j = 0; j < 16; ++j) bytes[192 + j] = static_cast<uint8_t>(block.sub_scales[j]);
  StoreU16(block.scale, bytes + 208);
}

// The same as numbers: pairs, bit planes and nibbles are fields of 2, 1 and 4 bits.
constexpr BlockLayout kQ2Layout = {.block_size = kBlock,
                                   .block_bytes = 84,
                                   .sub_block_size = 16,
                                   .scale_at = 80,
                                   .min_at = 82,
                                   .low = {.bits = 2, .at = 16, .run = 32},
                                   .sub_scale_low = {.bits = 4, .run = 16},
                                   .sub_min_low = {.bits = 4, .run = 16, .first = 16}};
constexpr BlockLayout kQ3Layout = {.block_size = kBlock,
                                   .block_bytes = 110,
                                   .sub_block_size = 16,
                                   .scale_at = 108,
                                   .low = {.bits = 2, .at = 32, .run = 32},
                                   .high = {.bits = 1, .run = 32},
                                   .first_level = -4,
                                   .sub_scale_low = {.bits = 4, .at = 96, .run = 8},
                                   .sub_scale_high = {.bits = 2, .at = 104, .run = 4},
                                   .sub_scale_offset = -32};
constexpr BlockLayout SixBits(int bytes, BitField low, BitField high) {
  return {.block_size = kBlock,
          .block_bytes = bytes,
          .sub_block_size = 32,
          .scale_at = 0,
          .min_at = 2,
          .low = low,
          .high = high,
          .sub_scale_low = {.bits = 4, .at = 4, .run = 4, .from = 4, .skip = 12},
          .sub_scale_high = {.bits = 2, .at = 4, .run = 4, .first = 8},
          .sub_min_low = {.bits = 4, .at = 4, .run = 4, .first = 8, .from = 4, .skip = 8},
          .sub_min_high = {.bits = 2, .at = 8, .run = 4, .first = 8}};
}
constexpr BlockLayout kQ4Layout = SixBits(144, {.bits = 4, .at = 16, .run = 32}, {});
constexpr BlockLayout kQ5Layout =
    SixBits(176, {.bits = 4, .at = 48, .run = 32}, {.bits = 1, .at = 16, .run = 32});
constexpr BlockLayout kQ6Layout = {.block_size = kBlock,
                                   .block_bytes = 210,
                                   .sub_block_size = 16,
                                   .scale_at = 208,
                                   .low = {.bits = 4, .run = 64},
                                   .high = {.bits = 2, .at = 128, .run = 32},
                                   .first_level = -32,
                                   .sub_scale_low = {.bits = 8, .at = 192},
                                   .sub_scales_have_signs = true};

constexpr GgufBlockShape kQ2_K = {.sub_blocks = 16,
                                  .levels = kQ2Levels,
                                  .min_sub_scale = 0,
                                  .max_sub_scale = 15,
                                  .max_sub_min = 15,
                                  .pack = &PackQ2_K,
                                  .layout = &kQ2Layout};
constexpr GgufBlockShape kQ3_K = {.sub_blocks = 16,
                                  .levels = kQ3Levels,
                                  .min_sub_scale = -32,
                                  .max_sub_scale = 31,
                                  .pack = &PackQ3_K,
                                  .layout = &kQ3Layout};
constexpr GgufBlockShape kQ4_K = {.sub_blocks = 8,
                                  .levels = kQ4Levels,
                                  .min_sub_scale = 0,
                                  .max_sub_scale = 63,
                                  .max_sub_min = 63,
                                  .pack = &PackQ4_K,
                                  .layout = &kQ4Layout};
constexpr GgufBlockShape kQ5_K = {.sub_blocks = 8,
                                  .levels = kQ5Levels,
                                  .min_sub_scale = 0,
                                  .max_sub_scale = 63,
                                  .max_sub_min = 63,
                                  .pack = &PackQ5_K,
                                  .layout = &kQ5Layout};
constexpr GgufBlockShape kQ6_K = {.sub_blocks = 16,
                                  .levels = kQ6Levels,
                                  .min_sub_scale = -128,
                                  .max_sub_scale = 127,
                                  .pack = &PackQ6_K,
                                  .layout = &kQ6Layout};

}  // namespace

extern const GgufTypeDef gguf_type_q2_k, gguf_type_q3_k, gguf_type_q4_k, gguf_type_q5_k,
    gguf_type_q6_k;
constinit const GgufTypeDef gguf_type_q2_k = {
    .type = GgufType::kQ2_K, .name = "Q2_K", .block_size = 256, .block_bytes = 84, .shape = &kQ2_K};
constinit const GgufTypeDef gguf_type_q3_k = {.type = GgufType::kQ3_K,
                                              .name = "Q3_K",
                                              .block_size = 256,
                                              .block_bytes = 110,
                                              .shape = &kQ3_K};
constinit const GgufTypeDef gguf_type_q4_k = {.type = GgufType::kQ4_K,
                                              .name = "Q4_K",
                                              .block_size = 256,
                                              .block_bytes = 144,
                                              .shape = &kQ4_K};
constinit const GgufTypeDef gguf_type_q5_k = {.type = GgufType::kQ5_K,
                                              .name = "Q5_K",
                                              .block_size = 256,
                                              .block_bytes = 176,
                                              .shape = &kQ5_K};
constinit const GgufTypeDef gguf_type_q6_k = {.type = GgufType::kQ6_K,
                                              .name = "Q6_K",
                                              .block_size = 256,
                                              .block_bytes = 210,
                                              .shape = &kQ6_K};

}  // namespace lwq
