// llama.cpp's types of tokens, as they stand in tokenizer.ggml.token_type.
#pragma once

#include <cstdint>

namespace lwq {

enum TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

}  // namespace lwq
