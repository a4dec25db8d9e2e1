// The pieces of a tokenizer.model: libsentencepiece's interface does not give scores and types out.
// Reads the wire format of sentencepiece_model.proto itself, bounds-checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct SentencePieces {
  struct Piece {
    std::string text;
    float score = 0;
    int32_t type =
        1;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte, as GGUF's
  };
  std::vector<Piece> pieces;
  int32_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 char
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool normalizes = false;  // characters, by a map
};

// `serialized` is the file's content. INVALID_ARGUMENT "TOKENIZER_INVALID" for damage.
absl::StatusOr<SentencePieces> ReadSentencePieces(absl::string_view serialized);

}  // namespace lwq
