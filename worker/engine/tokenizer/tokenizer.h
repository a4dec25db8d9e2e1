// Text to token ids, equal to Hugging Face `tokenizers` on the same files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Immutable and thread-safe after Load.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Encodes UTF-8 text. INVALID_ARGUMENT "DATASET_INVALID" for bytes that are none. With
  // `add_special_tokens`, what the model's own tokenizer adds by default (BOS for Llama) is put
  // around it.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                                      bool add_special_tokens) const = 0;
  virtual std::string Decode(const std::vector<int32_t>& ids) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int32_t bos_id() const = 0;  // -1: none
  virtual int32_t eos_id() const = 0;
  virtual bool adds_bos() const = 0;  // by default
};

// From a model directory: tokenizer.json if there, else tokenizer.model, else qwen.tiktoken;
// tokenizer_config.json says what is added. NOT_FOUND "TOKENIZER_MISSING"; INVALID_ARGUMENT
// "TOKENIZER_UNSUPPORTED" names the part of tokenizer.json that lwq does not know;
// "TOKENIZER_INVALID" for damage. At most 64 MiB.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory);

// The text of the model's tokenizer.json, or what its qwen.tiktoken says in that form; "" where it
// has neither, or tokenizer.model beside the latter. Errors: those of ReadModelFile, and
// "TOKENIZER_INVALID" for damage.
absl::StatusOr<std::string> ReadTokenizerText(const std::string& model_directory);

}  // namespace lwq
