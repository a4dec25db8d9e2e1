// What a linear does to its inputs before it multiplies, in formats whose engines multiply in 8
// bits: each row is rounded to 8-bit numbers by a scale of its own, which follows from the row's
// largest magnitude m. In F32: q = round(x / scale), the input becomes q * scale.
#pragma once

namespace lwq {

enum class ActivationRule {
  kNone,
  kInt8PerToken,  // scale m / 127.5, q an integer in [-128, 127], ties to even
  kFp8PerToken,   // scale m / 448, q a value of E4M3 (fp8.h)
};

// As compressed-tensors has it: half of 127 - -128.
inline constexpr float kInt8Range = 127.5f;

}  // namespace lwq
