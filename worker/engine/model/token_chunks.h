// Cuts a batch into runs of whole sequences with all that continues them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/model/decoder.h"

namespace lwq {

// Rows [begin, begin + size) of a batch. Segments and positions are relative to the chunk.
struct TokenChunk {
  int64_t begin = 0;
  int64_t size = 0;
  std::vector<Segment> segments;
  std::vector<int32_t> positions;  // of each token
  int64_t rope_length = 0;
};

// Chunks of at most `max_tokens`, or of one family of sequences where that is larger. The cut
// depends on the batch alone. `rope_length`, if given, maps the length of a family's longest
// sequence to what its rotations depend on: families of one chunk have the same. INVALID_ARGUMENT
// when segments do not cover the tokens in order or name a parent that is not before them.
absl::StatusOr<std::vector<TokenChunk>> CutIntoChunks(
    const TokenBatch& batch, int64_t max_tokens,
    const std::function<int64_t(int64_t length)>& rope_length = nullptr);

}  // namespace lwq
