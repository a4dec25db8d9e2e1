// A dense stream of fixed-width codes in little-endian 32-bit words: code j is bits [j * bits,
// (j + 1) * bits) of the stream, least significant first, and may straddle two words. The one
// packing of compressed-tensors and GPTQ alike; docs/formats/compressed_tensors.md.
#pragma once

#include <cstdint>

namespace lwq {

inline constexpr int64_t PackedWords(int64_t count, int bits) { return (count * bits + 31) / 32; }

// `codes` [count], each below 2^bits (higher bits are cut off), bits 1 to 8. Writes
// 4 * PackedWords(count, bits) bytes to `packed` (any alignment); the last word is filled with
// zeros.
void PackBits(const uint8_t* codes, int64_t count, int bits, uint8_t* packed);

// The inverse; reads 4 * PackedWords(count, bits) bytes.
void UnpackBits(const uint8_t* packed, int64_t count, int bits, uint8_t* codes);

}  // namespace lwq
