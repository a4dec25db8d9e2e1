// The steps of a tokenizer.json around its model: normalizer, pre-tokenizer and decoder, each a
// list. Names and rules are those of Hugging Face `tokenizers`.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tokenizer/text_pattern.h"

namespace lwq {

struct PrependStep {
  std::string prefix;
};
struct ReplaceStep {
  TextPattern pattern;
  std::string content;
};
struct NfcStep {};
using NormalizerStep = std::variant<PrependStep, ReplaceStep, NfcStep>;

// Errors: those of TextPattern::FindAll.
absl::StatusOr<std::string> Normalize(const std::vector<NormalizerStep>& steps,
                                      absl::string_view text);

struct SplitStep {
  TextPattern pattern;
  SplitBehavior behavior;
  bool invert;
};
struct ByteLevelStep {
  bool add_prefix_space;
  std::optional<TextPattern> pattern;
};
struct MetaspaceStep {
  enum class Prepend { kAlways, kFirst, kNever };
  std::string replacement;
  Prepend prepend;
  bool split;
};
using PreTokenizerStep = std::variant<SplitStep, ByteLevelStep, MetaspaceStep>;

struct Piece {
  std::string text;
  bool at_start;  // begins where the whole input begins
};

// `pieces` (the text between added tokens) becomes the words for the model.
absl::Status PreTokenize(const std::vector<PreTokenizerStep>& steps, std::vector<Piece>* pieces);

struct ByteLevelDecodeStep {};
struct ByteFallbackStep {};
struct FuseStep {};
struct StripStep {
  std::string content;
  int start;
  int stop;
};
struct MetaspaceDecodeStep {
  std::string replacement;
  bool drop_first;
};
using DecoderStep = std::variant<ByteLevelDecodeStep, ReplaceStep, ByteFallbackStep, FuseStep,
                                 StripStep, MetaspaceDecodeStep>;

// Text of `tokens`; damaged UTF-8 becomes U+FFFD.
std::string DecodeTokens(const std::vector<DecoderStep>& steps, std::vector<std::string> tokens);

}  // namespace lwq
