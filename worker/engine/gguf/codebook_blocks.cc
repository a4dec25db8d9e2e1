// IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S: four or eight magnitudes at once are a point of a
// table, signs lie apart. In the types without S the signs of eight values are seven bits, and the
// number of negative ones is even. Sub-block scales are odd multiples. docs/formats/gguf.md.
//
// Levels are in units that make the multiples whole: ggml's magnitudes by 8 for 2 bits, by 4 for
// IQ3_XXS. All products are exact in F32, so the order of multiplying makes no difference.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/codebook.h"

namespace lwq {
namespace {

constexpr uint16_t kIQ2_XXSPoints[256] = {
#include "worker/engine/gguf/iq2_xxs_points.inc"
};
constexpr uint16_t kIQ2_XSPoints[512] = {
#include "worker/engine/gguf/iq2_xs_points.inc"
};
constexpr uint16_t kIQ2_SPoints[1024] = {
#include "worker/engine/gguf/iq2_s_points.inc"
};
constexpr uint16_t kIQ3_XXSPoints[256] = {
#include "worker/engine/gguf/iq3_xxs_points.inc"
};
constexpr uint16_t kIQ3_SPoints[512] = {
#include "worker/engine/gguf/iq3_s_points.inc"
};

// Of both signs, ascending.
template <size_t kCount>
constexpr std::array<float, 2 * kCount> SignedLevels(const float (&magnitudes)[kCount]) {
  std::array<float, 2 * kCount> levels{};
  for (size_t m = 0; m < kCount; ++m) {
    levels[kCount - 1 - m] = -magnitudes[m];
    levels[kCount + m] = magnitudes[m];
  }
  return levels;
}
constexpr auto k2Levels = SignedLevels({1, 3.125f, 5.375f});
constexpr auto k3XxsLevels = SignedLevels({1, 3, 5, 7, 9, 11, 13, 15.5f});
constexpr auto k3SLevels = SignedLevels({1, 3, 5, 7, 9, 11, 13, 15});

template <size_t kLevels, size_t kPoints>
constexpr BlockLayout With(const std::array<float, kLevels>& levels,
                           const uint16_t (&points)[kPoints], BlockLayout layout) {
  layout.block_size = 256;
  layout.uneven = true;
  for (size_t i = 0; i < kLevels; ++i) layout.levels[i] = levels[i];
  layout.codebook.point_size = kLevels == 6 ? 8 : 4;
  layout.codebook.magnitudes = kLevels / 2;
  layout.codebook.num_points = kPoints;
  for (size_t p = 0; p < kPoints; ++p) layout.codebook.points[p] = points[p];
  return layout;
}

constexpr WordField Bits(int at) { return {.bits = 1, .at = at, .per_word = 8, .step = 1}; }
constexpr WordField Bytes(int at) { return {.bits = 8, .at = at}; }
constexpr WordField Nibbles(int at) { return {.bits = 4, .at = at, .per_word = 2, .step = 4}; }
// Words of four times seven signs and, above them, a scale.
constexpr WordField Sevens(int at, int stride) {
  return {.bits = 7, .at = at, .stride = stride, .per_word = 4, .step = 7};
}
constexpr WordField ScaleAbove(int at, int stride) {
  return {.bits = 4, .at = at, .stride = stride, .first = 28};
}

// d, then for 32 values four bytes of points and a word of signs and scale
constexpr BlockLayout kIQ2_XXSLayout =
    With(k2Levels, kIQ2_XXSPoints,
         {.block_bytes = 66,
          .sub_block_size = 32,
          .codebook = {.index_low = {.bits = 8, .at = 2, .stride = 8, .per_word = 4, .step = 8},
                       .signs = Sevens(6, 8),
                       .sub_scale = ScaleAbove(6, 8)}});
// d qs[32] (two bytes: a point and signs) scales[8]
constexpr BlockLayout kIQ2_XSLayout =
    With(k2Levels, kIQ2_XSPoints,
         {.block_bytes = 74,
          .sub_block_size = 16,
          .codebook = {.index_low = {.bits = 9, .at = 2, .stride = 2},
                       .signs = {.bits = 7, .at = 2, .stride = 2, .first = 9},
                       .sub_scale = Nibbles(66)}});
// d qs[32] signs[32] qh[8] scales[8]
constexpr BlockLayout kIQ2_SLayout =
    With(k2Levels, kIQ2_SPoints,
         {.block_bytes = 82,
          .sub_block_size = 16,
          .codebook = {.index_low = Bytes(2),
                       .index_high = {.bits = 2, .at = 66, .per_word = 4, .step = 2},
                       .signs = Bits(34),
                       .sub_scale = Nibbles(74)}});
// d qs[64], then for 32 values a word of signs and scale
constexpr BlockLayout kIQ3_XXSLayout = With(
    k3XxsLevels, kIQ3_XXSPoints,
    {.block_bytes = 98,
     .sub_block_size = 32,
     .codebook = {.index_low = Bytes(2), .signs = Sevens(66, 4), .sub_scale = ScaleAbove(66, 4)}});
// d qs[64] qh[8] signs[32] scales[4]
constexpr BlockLayout kIQ3_SLayout = With(k3SLevels, kIQ3_SPoints,
                                          {.block_bytes = 110,
                                           .sub_block_size = 32,
                                           .codebook = {.index_low = Bytes(2),
                                                        .index_high = Bits(66),
                                                        .signs = Bits(74),
                                                        .sub_scale = Nibbles(106)}});

// Into zeros.
void Put(const WordField& field, int i, int number, uint8_t* bytes) {
  if (field.bits == 0) return;
  const int bit = field.BitOf(i);
  const int shifted = (number & ((1 << field.bits) - 1)) << (bit % 8);
  bytes[bit / 8] |= static_cast<uint8_t>(shifted);
  if (shifted > 255) bytes[bit / 8 + 1] |= static_cast<uint8_t>(shifted >> 8);
}

void PutSigns(const CodebookLayout& book, const uint8_t* codes, uint8_t* bytes) {
  for (int cell = 0; cell < 256 / 8; ++cell) {
    int seven = 0;
    for (int k = 0; k < 8; ++k) {
      const int negative = codes[8 * cell + k] < book.magnitudes ? 1 : 0;
      if (book.signs.bits == 1) Put(book.signs, 8 * cell + k, negative, bytes);
      seven |= negative << k;
    }
    if (book.signs.bits == 7) Put(book.signs, cell, seven, bytes);
  }
}

template <const BlockLayout& kLayout>
const Codebook& CodebookOf() {
  static const Codebook& codebook = *new Codebook(kLayout);
  return codebook;
}

template <const BlockLayout& kLayout>
void Pack(const GgufBlock& block, uint8_t* bytes) {
  const CodebookLayout& book = kLayout.codebook;
  std::memset(bytes, 0, kLayout.block_bytes);
  StoreU16(block.scale, bytes);
  const Codebook& codebook = CodebookOf<kLayout>();
  for (int p = 0; p < 256 / book.point_size; ++p) {
    // Codes without a point are a caller's mistake; the first point then stands for them.
    const int point = std::max(codebook.PointOf(block.codes + p * book.point_size), 0);
    Put(book.index_low, p, point, bytes);
    Put(book.index_high, p, point >> book.index_low.bits, bytes);
  }
  PutSigns(book, block.codes, bytes);
  for (int j = 0; j < 256 / kLayout.sub_block_size; ++j) {
    Put(book.sub_scale, j, block.sub_scales[j] / 2, bytes);
  }
}

template <const BlockLayout& kLayout>
constexpr GgufBlockShape Shape(absl::Span<const float> levels) {
  return {.sub_blocks = 256 / kLayout.sub_block_size,
          .levels = levels,
          .min_sub_scale = 1,
          .max_sub_scale = 31,
          .sub_scale_step = 2,
          .pack = &Pack<kLayout>,
          .layout = &kLayout,
          .codebook = &CodebookOf<kLayout>};
}
constexpr GgufBlockShape kIQ2_XXS = Shape<kIQ2_XXSLayout>(k2Levels);
constexpr GgufBlockShape kIQ2_XS = Shape<kIQ2_XSLayout>(k2Levels);
constexpr GgufBlockShape kIQ2_S = Shape<kIQ2_SLayout>(k2Levels);
constexpr GgufBlockShape kIQ3_XXS = Shape<kIQ3_XXSLayout>(k3XxsLevels);
constexpr GgufBlockShape kIQ3_S = Shape<kIQ3_SLayout>(k3SLevels);

constexpr GgufTypeDef Def(GgufType type, absl::string_view name, const GgufBlockShape& shape) {
  return {.type = type,
          .name = name,
          .block_size = 256,
          .block_bytes = shape.layout->block_bytes,
          .shape = &shape};
}

}  // namespace

extern const GgufTypeDef gguf_type_iq2_xxs, gguf_type_iq2_xs, gguf_type_iq2_s, gguf_type_iq3_xxs,
    gguf_type_iq3_s;
constinit const GgufTypeDef gguf_type_iq2_xxs = Def(GgufType::kIQ2_XXS, "IQ2_XXS", kIQ2_XXS);
constinit const GgufTypeDef gguf_type_iq2_xs = Def(GgufType::kIQ2_XS, "IQ2_XS", kIQ2_XS);
constinit const GgufTypeDef gguf_type_iq2_s = Def(GgufType::kIQ2_S, "IQ2_S", kIQ2_S);
constinit const GgufTypeDef gguf_type_iq3_xxs = Def(GgufType::kIQ3_XXS, "IQ3_XXS", kIQ3_XXS);
constinit const GgufTypeDef gguf_type_iq3_s = Def(GgufType::kIQ3_S, "IQ3_S", kIQ3_S);

}  // namespace lwq
