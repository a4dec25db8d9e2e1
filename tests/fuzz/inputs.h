// What lwq reads from outside, each kind as a function over bytes: tried with feedback by libFuzzer
// (fuzz_main.cc), by seeded mutations in fuzz_test, and over the saved corpus in every build
// (corpus_test.cc).
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq::testing {

// Whether the input was accepted. An error is a broken promise: a refusal without a reason of its
// own, or a value that is not sane. A crash, a hang and allocation without bound show themselves.
using TryInput = absl::StatusOr<bool>(absl::string_view input);

TryInput TrySafetensors;
// A GGUF file's header, which must lay out again to the same bytes.
TryInput TryGguf;
// A GGUF file as a model: the files made of its keys, its tensors, its tokenizer.
TryInput TryGgufModel;
// config.json, read as every family; and what a GGUF file would say of it.
TryInput TryConfig;
TryInput TryQuantizationConfig;
// tokenizer.json, a text to encode and tokenizer_config.json, with a NUL after each of the first
// two; what is missing is empty.
TryInput TryTokenizerJson;
// tokenizer.model: as libsentencepiece reads it, and as a GGUF file would have it.
TryInput TrySentencePiece;
// qwen.tiktoken, which encodes a text that decodes to itself.
TryInput TryTiktoken;

struct FuzzInput {
  absl::string_view name;  // of its folder in corpus/
  TryInput* try_input;
};
absl::Span<const FuzzInput> FuzzInputs();

}  // namespace lwq::testing
