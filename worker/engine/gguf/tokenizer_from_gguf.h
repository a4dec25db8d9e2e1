// The tokenizer in a GGUF file's keys as the files of Hugging Face: the reverse of
// gguf_tokenizer.h. docs/formats/gguf.md.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

// tokenizer.json. llama.cpp's "llama" becomes a byte-fallback BPE whose merges follow from the
// scores, "gpt2" a byte-level BPE. Errors: UNIMPLEMENTED "GGUF_TOKENIZER" for another kind or an
// unknown pre-tokenizer; DATA_LOSS "GGUF_METADATA" for lists of unequal lengths; INVALID_ARGUMENT
// "TOKENIZER_INVALID" for tokens that occur twice or are not UTF-8; NOT_FOUND "TOKENIZER_MISSING".
absl::StatusOr<std::string> GgufTokenizerJson(const GgufMetadata& metadata);

// tokenizer_config.json: special tokens by name, what is put around a text, chat templates.
absl::StatusOr<std::string> GgufTokenizerConfigJson(const GgufMetadata& metadata);

}  // namespace lwq
