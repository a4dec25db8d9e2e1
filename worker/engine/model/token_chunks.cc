#include "worker/engine/model/token_chunks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

absl::Status CheckCover(const TokenBatch& batch) {
  int64_t next = 0;
  for (size_t i = 0; i < batch.segments.size(); ++i) {
    const Segment& s = batch.segments[i];
    if (s.begin != next || s.size < 0 || s.parent < -1 || s.parent >= static_cast<int32_t>(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment ", i, " begins at token ", s.begin, " with parent ", s.parent,
                       "; expected to begin at ", next, " with an earlier parent"));
    }
    next += s.size;
  }
  if (next == batch.num_tokens()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("segments cover ", next, " of ", batch.num_tokens(), " tokens"));
}

// Segments [first, last) of `batch` as a chunk of their own.
TokenChunk MakeChunk(const TokenBatch& batch, size_t first, size_t last) {
  TokenChunk chunk;
  chunk.begin = batch.segments[first].begin;
  for (size_t i = first; i < last; ++i) {
    Segment s = batch.segments[i];
    for (int64_t t = 0; t < s.size; ++t) {
      chunk.positions.push_back(s.first_position + static_cast<int32_t>(t));
    }
    chunk.size += s.size;
    s.begin -= chunk.begin;
    if (s.parent >= 0) s.parent -= static_cast<int32_t>(first);
    chunk.segments.push_back(s);
  }
  return chunk;
}

// Of the longest sequence that ends in segments [first, last).
int64_t LongestSequence(const TokenBatch& batch, size_t first, size_t last) {
  int64_t longest = 0;
  for (size_t i = first; i < last; ++i) {
    longest = std::max(longest, batch.segments[i].first_position + batch.segments[i].size);
  }
  return longest;
}

}  // namespace

absl::StatusOr<std::vector<TokenChunk>> CutIntoChunks(
    const TokenBatch& batch, int64_t max_tokens,
    const std::function<int64_t(int64_t length)>& rope_length) {
  LWQ_RETURN_IF_ERROR(CheckCover(batch));
  const size_t count = batch.segments.size();
  // A cut before segment i is allowed when nobody from i on continues a segment before i.
  std::vector<int32_t> reaches(count + 1, static_cast<int32_t>(count));
  for (size_t i = count; i-- > 0;) {
    const int32_t parent = batch.segments[i].parent;
    reaches[i] = std::min(reaches[i + 1], parent >= 0 ? parent : static_cast<int32_t>(i));
  }
  std::vector<TokenChunk> chunks;
  size_t first = 0;
  size_t cut = 0;      // the last place after `first` where a cut is allowed
  int64_t length = 0;  // of what lies before the cut
  const auto emit = [&] {
    chunks.push_back(MakeChunk(batch, first, cut));
    chunks.back().rope_length = length;
    first = cut;
  };
  for (size_t i = 1; i <= count; ++i) {
    if (reaches[i] < static_cast<int32_t>(i)) continue;
    const int64_t end = i == count ? batch.num_tokens() : batch.segments[i].begin;
    const int64_t next_length = rope_length ? rope_length(LongestSequence(batch, cut, i)) : 0;
    const bool too_long = end - batch.segments[first].begin > max_tokens;
    if (cut > first && (too_long || next_length != length)) emit();
    length = next_length;
    cut = i;
  }
  if (cut > first) emit();
  return chunks;
}

}  // namespace lwq
