// tokenizer.model by libsentencepiece, with what transformers' LlamaTokenizer does around it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/tokenizer/tokenizer.h"
#include "worker/engine/tokenizer/tokenizer_config.h"

namespace lwq {

// `serialized` is the file's content. The model's own unknown, begin and end tokens and those of
// added_tokens_decoder are found in texts. "TOKENIZER_INVALID" for damage.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(
    const std::string& serialized, const TokenizerConfig& config);

}  // namespace lwq
