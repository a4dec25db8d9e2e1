// The rows of the table that the collector "channel-statistics" leaves for each input.
#pragma once

#include "worker/engine/evidence/collector.h"

namespace lwq {

inline constexpr int64_t kLargestMagnitude = 0;
inline constexpr int64_t kMeanMagnitude = 1;
inline constexpr int64_t kMeanSquare = 2;
inline constexpr int64_t kNumChannelRows = 3;

}  // namespace lwq
