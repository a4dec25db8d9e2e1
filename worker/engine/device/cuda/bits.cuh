// 16-bit floats to and from F32, as worker/engine/tensor/half.h defines them; 8-bit ones to F32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace lwq::cuda {

__device__ inline uint32_t BitsOf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

__device__ inline float FloatOf(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

__device__ inline float WidenBF16(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

// Nearest, ties to even; a NaN stays one.
__device__ inline uint16_t RoundToBF16(float value) {
  const uint32_t bits = BitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline float WidenF16(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in F32
    return FloatOf(BitsOf(static_cast<float>(mantissa) * 0x1p-24f) | sign);
  }
  if (exponent == 31) return FloatOf(sign | 0x7f800000u | (mantissa << 13));
  return FloatOf(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// E4M3, as worker/engine/tensor/fp8.h defines it.
__device__ inline float WidenE4M3(uint8_t code) {
  const uint32_t sign = uint32_t{code & 0x80u} << 24;
  const uint32_t exponent = (code >> 3) & 15u, mantissa = code & 7u;
  if ((code & 0x7fu) == 0x7fu) return FloatOf(sign | 0x7fc00000u);
  if (exponent == 0) return FloatOf(BitsOf(static_cast<float>(mantissa) * 0x1p-9f) | sign);
  return FloatOf(sign | ((exponent + 120) << 23) | (mantissa << 20));
}

}  // namespace lwq::cuda
