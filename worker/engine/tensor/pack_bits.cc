// Eight codes are `bits` whole bytes of the stream, so both directions work on eight codes and one
// 64-bit value at a time; what is left at the end goes code by code.
#include "worker/engine/tensor/pack_bits.h"

#include <cstring>

namespace lwq {
namespace {

// Little-endian machines only, as everywhere in lwq (the stored formats are little-endian and
// mapped).
template <int kBits>
void PackEights(const uint8_t* codes, int64_t eights, uint8_t* packed) {
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  for (int64_t i = 0; i < eights; ++i) {
    uint64_t value = 0;
    for (int j = 0; j < 8; ++j) value |= (codes[8 * i + j] & kMask) << (kBits * j);
    std::memcpy(packed + kBits * i, &value, kBits);
  }
}

template <int kBits>
void UnpackEights(const uint8_t* packed, int64_t eights, uint8_t* codes) {
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  for (int64_t i = 0; i < eights; ++i) {
    uint64_t value = 0;
    std::memcpy(&value, packed + kBits * i, kBits);
    for (int j = 0; j < 8; ++j) {
      codes[8 * i + j] = static_cast<uint8_t>((value >> (kBits * j)) & kMask);
    }
  }
}

using PackFunction = void (*)(const uint8_t*, int64_t, uint8_t*);
constexpr PackFunction kPack[] = {nullptr,        &PackEights<1>, &PackEights<2>,
                                  &PackEights<3>, &PackEights<4>, &PackEights<5>,
                                  &PackEights<6>, &PackEights<7>, &PackEights<8>};
constexpr PackFunction kUnpack[] = {nullptr,          &UnpackEights<1>, &UnpackEights<2>,
                                    &UnpackEights<3>, &UnpackEights<4>, &UnpackEights<5>,
                                    &UnpackEights<6>, &UnpackEights<7>, &UnpackEights<8>};

}  // namespace

void PackBits(const uint8_t* codes, int64_t count, int bits, uint8_t* packed) {
  const int64_t eights = count / 8;
  kPack[bits](codes, eights, packed);
  const int64_t done = bits * eights;
  const int64_t left = 4 * PackedWords(count, bits) - done;
  if (left > 0) std::memset(packed + done, 0, static_cast<size_t>(left));
  for (int64_t j = 0; j < count - 8 * eights; ++j) {
    for (int b = 0; b < bits; ++b) {
      const int64_t position = j * bits + b;
      const int bit = (codes[8 * eights + j] >> b) & 1;
      packed[done + position / 8] |= static_cast<uint8_t>(bit << (position % 8));
    }
  }
}

void UnpackBits(const uint8_t* packed, int64_t count, int bits, uint8_t* codes) {
  const int64_t eights = count / 8;
  kUnpack[bits](packed, eights, codes);
  const uint8_t* rest = packed + bits * eights;
  for (int64_t j = 0; j < count - 8 * eights; ++j) {
    int code = 0;
    for (int b = 0; b < bits; ++b) {
      const int64_t position = j * bits + b;
      code |= ((rest[position / 8] >> (position % 8)) & 1) << b;
    }
    codes[8 * eights + j] = static_cast<uint8_t>(code);
  }
}

}  // namespace lwq
