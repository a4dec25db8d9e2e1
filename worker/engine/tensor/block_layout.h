// Where the parts of a block of weights lie in its bytes, as numbers: with these every device makes
// weights of GGUF's integer types (worker/engine/gguf/) without knowing one of them. C++17 without
// absl, as CUDA's kernels include it.
#pragma once

#include <cstdint>

namespace lwq {

// Numbers of 1, 2, 4 or 8 bits. They lie in runs of `run` bytes, from byte `at` on: the lowest bits
// of a run hold the first `run` numbers, the next bits the next, and run follows run.
struct BitField {
  int bits = 0;  // 0: there is none, all are zero
  int at = 0;
  int run = 1;
  int first = 0;  // the run's numbers before the block's first
  // From number `from` on, so many of the run's are left out (Q4_K's scales and minima).
  int from = 0, skip = 0;
};

// Number i of the block.
constexpr int NumberAt(const BitField& field, const uint8_t* block, int i) {
  if (field.bits == 0) return 0;
  if (i >= field.from) i += field.skip;
  i += field.first;
  const int in_run = field.run * (8 / field.bits);
  const int byte = field.at + i / in_run * field.run + i % field.run;
  const int shift = i % in_run / field.run * field.bits;
  return block[byte] >> shift & ((1 << field.bits) - 1);
}

inline constexpr int kMaxBlockSize = 256;

// Value i of a block, of sub-block j:
//   (scale * sub_scale[j]) * level - min * sub_min[j]
// each product and the difference rounded to F32; scale and min are F16.
struct BlockLayout {
  int block_size = 0;
  int block_bytes = 0;
  int sub_block_size = 0;
  int scale_at = 0;
  int min_at = -1;         // -1: there are no minima
  bool min_added = false;  // the stored min is to be added: it is the negative of the one above
  // Of values: a code is `low`, and `high` above its bits; its level first_level + code, or where
  // that is not so, levels[code].
  BitField low, high;
  int flipped = 0;  // the bits of a code that are stored the other way round
  int first_level = 0;
  bool uneven = false;
  int8_t levels[16] = {};
  // Of sub-blocks: as codes, with `sub_scale_offset` added; where there are none, 1.
  BitField sub_scale_low, sub_scale_high;
  int sub_scale_offset = 0;
  bool sub_scales_have_signs = false;  // they are bytes in two's complement
  BitField sub_min_low, sub_min_high;

  constexpr int Code(const uint8_t* block, int i) const {
    const int code = NumberAt(low, block, i) | NumberAt(high, block, i) << low.bits;
    return code ^ flipped;
  }
  constexpr int Level(int code) const { return uneven ? levels[code] : first_level + code; }
  constexpr int SubScale(const uint8_t* block, int j) const {
    if (sub_scale_low.bits == 0) return 1;
    const int stored = NumberAt(sub_scale_low, block, j) | NumberAt(sub_scale_high, block, j) << 4;
    if (sub_scales_have_signs) return stored < 128 ? stored : stored - 256;
    return stored + sub_scale_offset;
  }
  constexpr int SubMin(const uint8_t* block, int j) const {
    if (sub_min_low.bits == 0) return min_at < 0 ? 0 : 1;
    return NumberAt(sub_min_low, block, j) | NumberAt(sub_min_high, block, j) << 4;
  }
  static constexpr uint16_t HalfAt(const uint8_t* block, int at) {
    return static_cast<uint16_t>(block[at] | block[at + 1] << 8);
  }
};

// Codes 0 to layout.block_size - 1, as layout.Code gives them one by one.
inline void UnpackBlockCodes(const BlockLayout& layout, const uint8_t* block, uint8_t* codes) {
  const auto add = [&](const BitField& field, int shift, auto put) {
    if (field.bits == 0) return;
    const int in_byte = 8 / field.bits, mask = (1 << field.bits) - 1;
    const uint8_t* byte = block + field.at;
    for (int i = 0; i < layout.block_size; byte += field.run) {
      for (int k = 0; k < in_byte; ++k, i += field.run) {
        for (int l = 0; l < field.run; ++l) {
          put(codes[i + l], static_cast<uint8_t>((byte[l] >> (k * field.bits) & mask) << shift));
        }
      }
    }
  };
  const uint8_t flipped = static_cast<uint8_t>(layout.flipped);
  add(layout.low, 0, [&](uint8_t& code, uint8_t bits) { code = bits ^ flipped; });
  add(layout.high, layout.low.bits, [](uint8_t& code, uint8_t bits) { code |= bits; });
}

}  // namespace lwq
