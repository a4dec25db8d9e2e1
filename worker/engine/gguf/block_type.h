// The tensor types of GGUF as data: a name, a number, sizes, and for the integer types the way from
// a block's parts to its bytes and back. What the types share (values, rounding, search) is written
// once over these parts. Byte layouts: docs/formats/gguf.md.
//
// Adding one: a GgufTypeDef in the file of its kin, and a line in gguf_types.def.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/tensor/block_layout.h"
#include "worker/engine/tensor/half.h"

namespace lwq {

// ggml's numbers, as they stand in files.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kBF16 = 30
};

class Codebook;

inline constexpr int kMaxGgufBlock = 256;
inline constexpr int kMaxGgufSubBlocks = 16;

// A block of an integer type, in parts. Value i, of sub-block j:
//   (scale * sub_scales[j]) * levels[codes[i]] - min * sub_mins[j]
// each product and the difference rounded to F32, as ggml and gguf-py compute it.
struct GgufBlock {
  uint16_t scale = 0;  // F16
  uint16_t min = 0;    // F16; +0 in a type without minima. Q4_1 and Q5_1 store its negative
  int8_t sub_scales[kMaxGgufSubBlocks] = {};  // 1 in a type without them
  uint8_t sub_mins[kMaxGgufSubBlocks] = {};   // 1 in Q4_1 and Q5_1, 0 in a type without minima
  uint8_t codes[kMaxGgufBlock] = {};

  float Step(int sub_block) const {
    return F16ToFloat(scale) * static_cast<float>(sub_scales[sub_block]);
  }
  float Offset(int sub_block) const {
    return F16ToFloat(min) * static_cast<float>(sub_mins[sub_block]);
  }
};

// What a block of an integer type may hold.
struct GgufBlockShape {
  int sub_blocks = 1;              // of equal size
  absl::Span<const float> levels;  // of each code, ascending
  // Where levels are not evenly spaced: the code of the one nearest to all of
  // [levels[0] + k / 2, levels[0] + (k + 1) / 2), up to the last level.
  absl::Span<const uint8_t> nearest_codes;
  int min_sub_scale = 1;  // sub-block scales are whole multiples in this range
  int max_sub_scale = 1;
  int sub_scale_step = 1;     // 2: only odd ones
  int max_sub_min = 0;        // 0: no minima
  bool min_has_sign = false;  // Q4_1, Q5_1: the minimum may be of either sign
  // `bytes` has the type's block_bytes; the parts are in range.
  void (*pack)(const GgufBlock& block, uint8_t* bytes) = nullptr;
  const BlockLayout* layout = nullptr;  // where they lie
  // Where not every row of codes is one that the type has (codebook.h); null elsewhere.
  const Codebook& (*codebook)() = nullptr;
};

struct GgufTypeDef {
  GgufType type;
  absl::string_view name;  // as ggml spells it: "Q4_K"
  int block_size;          // values; the length of a row is a multiple of it
  int block_bytes;
  const GgufBlockShape* shape = nullptr;  // null for F32, F16 and BF16, which have:
  float (*load)(const uint8_t* bytes) = nullptr;
  void (*store)(float value, uint8_t* bytes) = nullptr;

  int sub_block_size() const { return shape == nullptr ? 1 : block_size / shape->sub_blocks; }
  double bits_per_weight() const { return 8.0 * block_bytes / block_size; }
  // Bytes of a row of `cols` values, a multiple of block_size.
  int64_t RowBytes(int64_t cols) const { return cols / block_size * block_bytes; }
};

// In the order of their names.
absl::Span<const GgufTypeDef* const> GgufTypes();
const GgufTypeDef& DefOf(GgufType type);
// Null when lwq does not have the type.
const GgufTypeDef* FindGgufType(uint32_t number);
const GgufTypeDef* FindGgufType(absl::string_view name);

// What pack packed; `type` has a shape, `bytes` its block_bytes.
void UnpackBlock(const GgufTypeDef& type, const uint8_t* bytes, GgufBlock* block);

// `bytes` of RowBytes(cols) to F32, equal to gguf-py to the bit (NaN payloads aside).
void DequantizeRow(const GgufTypeDef& type, const uint8_t* bytes, int64_t cols, float* out);

}  // namespace lwq
