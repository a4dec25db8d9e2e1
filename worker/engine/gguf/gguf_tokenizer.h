// The metadata of a GGUF file that is the tokenizer: tokens, scores or merges, special tokens.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

// The contents of a model's files; empty where there is none. The JSON passed CheckJson
// (io/json_file.h).
struct GgufTokenizerFiles {
  std::string tokenizer_model;
  std::string tokenizer_json;
  std::string tokenizer_config;  // tokenizer_config.json
  std::string config;            // config.json
  std::string chat_template;     // chat_template.jinja
  // What the model's tokenizer does, for where the files do not say it: whether it puts a token
  // before a text, and which. -1: none.
  bool adds_bos = false;
  int64_t bos_id = -1;
};

// Sets tokenizer.* for a model whose embedding has `vocab_size` rows; ids without a token become
// [PADn]. A SentencePiece BPE model is llama.cpp's "llama", from tokenizer.model where there is
// one; a byte-level BPE is its "gpt2", whose pre-tokenizer is recognised by its patterns. Chat
// templates are copied. Errors: UNIMPLEMENTED "GGUF_TOKENIZER" for what llama.cpp does not have
// (refused rather than guessed); INVALID_ARGUMENT "TOKENIZER_INVALID" for damage and for more
// tokens than rows; NOT_FOUND "TOKENIZER_MISSING".
absl::Status SetGgufTokenizer(const GgufTokenizerFiles& files, int64_t vocab_size,
                              GgufMetadata* metadata);

}  // namespace lwq
