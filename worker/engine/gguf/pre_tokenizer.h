// What llama.cpp is told about the steps around a tokenizer.json's model. Each function takes the
// file's text, which is a JSON object.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// The other way round, of a name that llama.cpp has for the steps before a byte-level BPE.
struct StepsBeforeModel {
  std::string normalizer;     // JSON; "null" for none
  std::string pre_tokenizer;  // JSON
  bool ignore_merges = false;
  bool adds_bos = false;      // what llama.cpp does where no key says it
};
// UNIMPLEMENTED "GGUF_TOKENIZER" lists the names that lwq knows.
absl::StatusOr<StepsBeforeModel> StepsOfPreTokenizer(absl::string_view name);

// llama.cpp's name for the pre-tokenizer of a byte-level BPE, by its steps and patterns.
// UNIMPLEMENTED "GGUF_TOKENIZER" for one that llama.cpp is not known to have.
absl::StatusOr<std::string> PreTokenizerName(absl::string_view tokenizer_json);

// Whether a blank is put before the text of a SentencePiece-style BPE. UNIMPLEMENTED
// "GGUF_TOKENIZER" for steps that are not those of SentencePiece.
absl::StatusOr<bool> AddsSpacePrefix(absl::string_view tokenizer_json);

// Whether the template has a token before the text, and after it.
struct AroundText {
  bool before = false;
  bool after = false;
};
AroundText AddedAroundText(absl::string_view tokenizer_json);

}  // namespace lwq
