// A tokenizer whose tokens are bytes, so that a test can say where every one of them goes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq::testing {

// One token a byte; BOS is 256, and in front of a text if `bos`.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool bos) : bos_(bos) {}
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const override {
    std::vector<int32_t> tokens(text.begin(), text.end());
    if (bos_ && add_special_tokens) tokens.insert(tokens.begin(), bos_id());
    num_encoded_ += static_cast<int64_t>(text.size());
    return tokens;
  }
  std::string Decode(const std::vector<int32_t>&) const override { return ""; }
  int64_t vocab_size() const override { return 257; }
  int32_t bos_id() const override { return 256; }
  int32_t eos_id() const override { return -1; }
  bool adds_bos() const override { return bos_; }

  // Bytes of all calls so far.
  int64_t num_encoded() const { return num_encoded_; }

 private:
  const bool bos_;
  mutable int64_t num_encoded_ = 0;
};

}  // namespace lwq::testing
