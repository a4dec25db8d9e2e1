// What a packed run of sequences is to the attention kernel: tiles of queries and lists of keys.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "worker/engine/device/cuda/attention_kernels.h"
#include "worker/engine/device/device.h"

namespace lwq::cuda {

struct AttentionPlan {
  std::vector<QueryTile> tiles;  // the longest lists first: the last blocks to start are short
  std::vector<KeyRange> ranges;
};

// Segments that fit (check_shapes.h).
AttentionPlan PlanAttention(absl::Span<const Segment> segments);

}  // namespace lwq::cuda
