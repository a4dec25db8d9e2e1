// Requests of multiple-choice items packed for one pass through a model: contexts that several
// share are computed once, within what the decoder takes at a time.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "worker/engine/eval/request_encoding.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/head_reading.h"

namespace lwq {

// Where the score of one continuation token goes.
struct TargetOwner {
  TokenTarget target;
  size_t item = 0;
  size_t option = 0;
};

class ChoicePass {
 public:
  // Contexts lose their beginning where a request is longer than `max_length`. A sequence with
  // others behind it goes through the layers with them: no more than `chunk_tokens`.
  ChoicePass(int64_t max_length, int64_t chunk_tokens)
      : max_length_(max_length), chunk_tokens_(chunk_tokens) {}

  void Add(const EncodedPair& pair, size_t item, size_t option);
  const TokenBatch& batch() const { return batch_; }
  // Sorted by row.
  std::vector<TargetOwner> Owners() const;

 private:
  // The rows from `first_row` on predict `tokens` but the first, which `row_before` predicts.
  void AddTargets(int64_t row_before, int64_t first_row, const std::vector<int32_t>& tokens,
                  size_t item, size_t option);

  // A context at token `begin` is continued up to `end`: all between goes through the layers with
  // it, as one family. False, and nothing is done, where that is more than a chunk: an earlier
  // context that others lie behind is then computed again.
  bool Join(int64_t begin, int64_t end);

  const int64_t max_length_, chunk_tokens_;
  TokenBatch batch_;
  std::map<std::vector<int32_t>, int> segment_of_context_;
  std::vector<int64_t> family_begins_;  // first tokens of what can be cut apart, in order
  std::vector<TargetOwner> owners_;
};

}  // namespace lwq
