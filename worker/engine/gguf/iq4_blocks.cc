// IQ4_NL and IQ4_XS: 4-bit codes of sixteen levels that lie closer near zero, where weights are.
#include <algorithm>
#include <array>
#include <cstddef>

#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

constexpr int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};

constexpr auto FloatLevels() {
  std::array<float, 16> levels{};
  for (size_t i = 0; i < 16; ++i) levels[i] = kLevels[i];
  return levels;
}
constexpr auto kFloatLevels = FloatLevels();

constexpr auto NearestCodes() {
  std::array<uint8_t, 2 * (kLevels[15] - kLevels[0]) + 1> codes{};
  int code = 0;
  for (int k = 0; k < static_cast<int>(codes.size()); ++k) {
    // Twice the middle between two levels is whole, so no interval of a half is cut by it.
    if (code < 15 && k >= kLevels[code] + kLevels[code + 1] - 2 * kLevels[0]) ++code;
    codes[static_cast<size_t>(k)] = static_cast<uint8_t>(code);
  }
  return codes;
}
constexpr auto kNearestCodes = NearestCodes();

// d qs[16]
void PackIQ4_NL(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  PackNibbles(block.codes, 16, bytes + 2);
}

// d scales_h scales_l[4] qs[128]. Scales are stored + 32: four low bits of scale j in half a byte
// of scales_l, two high bits at bit 2 j of scales_h.
void PackIQ4_XS(const GgufBlock& block, uint8_t* bytes) {
  StoreU16(block.scale, bytes);
  int high = 0;
  uint8_t low[8];
  for (int j = 0; j < 8; ++j) {
    const int stored = block.sub_scales[j] + 32;
    low[j] = static_cast<uint8_t>(stored & 15);
    high |= (stored >> 4) << (2 * j);
    PackNibbles(block.codes + 32 * j, 16, bytes + 8 + 16 * j);
  }
  StoreU16(static_cast<uint16_t>(high), bytes + 2);
  for (int j = 0; j < 4; ++j) bytes[4 + j] = static_cast<uint8_t>(low[2 * j] | low[2 * j + 1] << 4);
}

constexpr BlockLayout WithLevels(BlockLayout layout) {
  layout.uneven = true;
  for (int i = 0; i < 16; ++i) layout.levels[i] = kLevels[i];
  return layout;
}
constexpr BlockLayout kNlLayout = WithLevels({.block_size = 32,
                                              .block_bytes = 18,
                                              .sub_block_size = 32,
                                              .low = {.bits = 4, .at = 2, .run = 16}});
constexpr BlockLayout kXsLayout = WithLevels({.block_size = 256,
                                              .block_bytes = 136,
                                              .sub_block_size = 32,
                                              .low = {.bits = 4, .at = 8, .run = 16},
                                              .sub_scale_low = {.bits = 4, .at = 4},
                                              .sub_scale_high = {.bits = 2, .at = 2},
                                              .sub_scale_offset = -32});

constexpr GgufBlockShape kIQ4_NL = {.levels = kFloatLevels,
                                    .nearest_codes = kNearestCodes,
                                    .pack = &PackIQ4_NL,
                                    .layout = &kNlLayout};
constexpr GgufBlockShape kIQ4_XS = {.sub_blocks = 8,
                                    .levels = kFloatLevels,
                                    .nearest_codes = kNearestCodes,
                                    .min_sub_scale = -32,
                                    .max_sub_scale = 31,
                                    .pack = &PackIQ4_XS,
                                    .layout = &kXsLayout};

}  // namespace

extern const GgufTypeDef gguf_type_iq4_nl, gguf_type_iq4_xs;
constinit const GgufTypeDef gguf_type_iq4_nl = {.type = GgufType::kIQ4_NL,
                                                .name = "IQ4_NL",
                                                .block_size = 32,
                                                .block_bytes = 18,
                                                .shape = &kIQ4_NL};
constinit const GgufTypeDef gguf_type_iq4_xs = {.type = GgufType::kIQ4_XS,
                                                .name = "IQ4_XS",
                                                .block_size = 256,
                                                .block_bytes = 136,
                                                .shape = &kIQ4_XS};

}  // namespace lwq
