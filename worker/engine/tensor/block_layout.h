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

// Numbers of up to 9 bits, several to a word: number i lies in word i / per_word, from its bit
// first + step * (i mod per_word) on, the lowest first; a word begins every `stride` bytes.
struct WordField {
  int bits = 0;  // 0: there is none, all are zero
  int at = 0;
  int stride = 1;
  int per_word = 1;
  int first = 0, step = 0;

  constexpr int BitOf(int i) const {
    return 8 * (at + i / per_word * stride) + first + step * (i % per_word);
  }
};

constexpr int NumberAt(const WordField& field, const uint8_t* block, int i) {
  if (field.bits == 0) return 0;
  const int bit = field.BitOf(i), shift = bit % 8;
  int word = block[bit / 8];
  if (shift + field.bits > 8) word |= block[bit / 8 + 1] << 8;
  return word >> shift & ((1 << field.bits) - 1);
}

// A block whose values come in points of a table, so many at a time, each with a sign.
struct CodebookLayout {
  static constexpr int kMaxPoints = 1024;
  int point_size = 0;   // 4 or 8; 0: no such block
  int magnitudes = 0;   // that a value of a point has
  WordField index_low;  // of points: which one, as two parts of a number
  WordField index_high;
  WordField signs;      // 1 bit: of values. 7 bits: of 8 values, whose number of signs is even
  WordField sub_scale;  // of sub-blocks: s of the multiple 1 + 2 s
  int num_points = 0;
  // 16 / point_size bits say which magnitude a value has, the first value's lowest.
  uint16_t points[kMaxPoints] = {};

  constexpr int Magnitude(int point, int i) const {
    const int bits = 16 / point_size;
    return points[point] >> (i * bits) & ((1 << bits) - 1);
  }
  constexpr int PointAt(const uint8_t* block, int point) const {
    return NumberAt(index_low, block, point) | NumberAt(index_high, block, point) << index_low.bits;
  }
  constexpr bool IsNegative(const uint8_t* block, int i) const {
    if (signs.bits == 1) return NumberAt(signs, block, i) != 0;
    const int seven = NumberAt(signs, block, i / 8);
    if (i % 8 < 7) return (seven >> (i % 8) & 1) != 0;
    const int half = seven ^ seven >> 4;
    return (0x6996 >> (half & 15) & 1) != 0;  // whether the number of the other signs is odd
  }
  // Codes go up with their levels: from the largest magnitude below zero to that above.
  constexpr int CodeOf(int magnitude, bool negative) const {
    return negative ? magnitudes - 1 - magnitude : magnitudes + magnitude;
  }
  constexpr int Code(const uint8_t* block, int i) const {
    const int point = PointAt(block, i / point_size);
    return CodeOf(Magnitude(point, i % point_size), IsNegative(block, i));
  }
};

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
  float levels[16] = {};
  CodebookLayout codebook;  // where there is one, codes and sub-scales are its
  // Of sub-blocks: as codes, with `sub_scale_offset` added; where there are none, 1.
  BitField sub_scale_low, sub_scale_high;
  int sub_scale_offset = 0;
  bool sub_scales_have_signs = false;  // they are bytes in two's complement
  BitField sub_min_low, sub_min_high;

  constexpr int Code(const uint8_t* block, int i) const {
    if (codebook.point_size > 0) return codebook.Code(block, i);
    const int code = NumberAt(low, block, i) | NumberAt(high, block, i) << low.bits;
    return code ^ flipped;
  }
  constexpr float Level(int code) const {
    return uneven ? levels[code] : static_cast<float>(first_level + code);
  }
  constexpr int SubScale(const uint8_t* block, int j) const {
    if (codebook.point_size > 0) return 1 + 2 * NumberAt(codebook.sub_scale, block, j);
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
  if (layout.codebook.point_size > 0) {
    const CodebookLayout& book = layout.codebook;
    for (int i = 0; i < layout.block_size;) {
      const int point = book.PointAt(block, i / book.point_size);
      for (int k = 0; k < book.point_size; ++k, ++i) {
        const int code = book.CodeOf(book.Magnitude(point, k), book.IsNegative(block, i));
        codes[i] = static_cast<uint8_t>(code);
      }
    }
    return;
  }
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
