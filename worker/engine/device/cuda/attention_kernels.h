// Attention over a packed run of sequences. A query's keys are the tokens of its segment's
// ancestors, the eldest first, and of its segment up to itself: a list, of which a query tile reads
// the part that its window reaches, 32 keys at a time, with an online softmax. A query's result
// depends on its list alone, not on what else is in the batch.
#pragma once

#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// Queries of a tile.
constexpr int kQueryTile = 32;
// The longest head that a tile's shared memory holds.
constexpr int kLargestHead = 256;

// Rows [row, row + size), which are entries [first, first + size) of a list.
struct KeyRange {
  int32_t row = 0;
  int32_t size = 0;
  int32_t first = 0;
};

// Up to kQueryTile tokens that follow each other in one segment.
struct QueryTile {
  int32_t row = 0;  // of the first
  int32_t count = 0;
  int32_t place = 0;        // of the first in its list
  int32_t first_range = 0;  // the list: ranges [first_range, first_range + num_ranges)
  int32_t num_ranges = 0;
};

struct AttentionNumbers {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  float scale;
  int sliding_window;   // 0: none
  float logit_softcap;  // 0: none
};

cudaError_t Attention(cudaStream_t stream, View<const float> q, View<const float> k,
                      View<const float> v, Span<const QueryTile> tiles, Span<const KeyRange> ranges,
                      AttentionNumbers numbers, View<float> out);

}  // namespace lwq::cuda
