// What the collector "input-rows" leaves for each input: so many rows of it, drawn from all tokens
// alike. Rows of zeros where fewer tokens came.
#pragma once

#include <cstdint>

namespace lwq {

inline constexpr int64_t kNumInputRows = 128;

}  // namespace lwq
