// What tokenizer_config.json (and special_tokens_map.json) say besides the tokenizer itself.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/tokenizer/added_tokens.h"

namespace lwq {

struct TokenizerConfig {
  std::string tokenizer_class;
  std::string bos_token, eos_token, unk_token;  // empty: none
  // What is put around a text; nullopt: what the tokenizer itself says.
  std::optional<bool> add_bos, add_eos;
  // SentencePiece only: a blank goes before every part between special tokens (true), or before the
  // first alone (false).
  bool legacy = true;
  std::vector<AddedToken> added_tokens;  // of added_tokens_decoder, by id
};

// A missing file gives defaults. "TOKENIZER_INVALID" for damage; at most 8 MiB.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& model_directory);

}  // namespace lwq
