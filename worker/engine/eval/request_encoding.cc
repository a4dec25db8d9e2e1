// See request_encoding.h. Rules of lm-evaluation-harness v0.4.12.
#include "worker/engine/eval/request_encoding.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/eval/hellaswag_text.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

// Words and merges end within a line or so: what a cut changes is only among the last tokens.
constexpr int64_t kTokensBeforeCut = 256;
constexpr size_t kLikelyTokenBytes = 5;

// End of the text without trailing whitespace.
size_t EndOfWords(absl::string_view text) {
  // A leading mark keeps the front from being stripped as well.
  const std::string marked = absl::StrCat("x", text);
  return StripWhitespace(marked).size() - 1;
}

}  // namespace

absl::string_view TextBeginning(absl::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  const size_t line_end = end == 0 ? absl::string_view::npos : text.rfind('\n', end - 1);
  if (line_end != absl::string_view::npos && line_end >= end / 2) {
    return text.substr(0, line_end + 1);
  }
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

absl::StatusOr<BosMode> ParseBosMode(absl::string_view name) {
  if (name.empty() || name == "tokenizer") return BosMode::kTokenizer;
  if (name == "always") return BosMode::kAlways;
  if (name == "never") return BosMode::kNever;
  return Failure(reasons::kBosUnknown,
                 absl::StrCat("bos \"", name, "\" is not one of tokenizer, always, never"));
}

absl::string_view NameOf(BosMode mode) {
  switch (mode) {
    case BosMode::kTokenizer:
      return "tokenizer";
    case BosMode::kAlways:
      return "always";
    case BosMode::kNever:
      return "never";
  }
  return "";
}

RequestEncoder::RequestEncoder(const Tokenizer* tokenizer, BosMode mode, int32_t prefix_token)
    : tokenizer_(tokenizer),
      mode_(mode),
      prefix_token_(prefix_token),
      prefix_text_(tokenizer->Decode({prefix_token})) {}

absl::StatusOr<RequestEncoder> RequestEncoder::Create(const Tokenizer* tokenizer, BosMode mode) {
  const int32_t prefix = tokenizer->bos_id() >= 0 ? tokenizer->bos_id() : tokenizer->eos_id();
  if (prefix < 0 || (mode == BosMode::kAlways && tokenizer->bos_id() < 0)) {
    return Failure(
        reasons::kBosMissing,
        absl::StrCat("the evaluation needs a beginning-of-text token, and the tokenizer names ",
                     prefix < 0 ? "neither bos_token nor eos_token" : "no bos_token",
                     " in tokenizer_config.json"));
  }
  return RequestEncoder(tokenizer, mode, prefix);
}

absl::StatusOr<std::vector<int32_t>> RequestEncoder::EncodeText(absl::string_view text) const {
  if (mode_ == BosMode::kNever) return tokenizer_->Encode(text, false);
  const bool has_prefix = !prefix_text_.empty() && absl::StartsWith(text, prefix_text_);
  if (mode_ == BosMode::kTokenizer) return tokenizer_->Encode(text, !has_prefix);
  LWQ_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, tokenizer_->Encode(text, false));
  if (!has_prefix) tokens.insert(tokens.begin(), tokenizer_->bos_id());
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> RequestEncoder::EncodeBeginning(absl::string_view text,
                                                                     int64_t max_tokens) const {
  size_t bytes = static_cast<size_t>(max_tokens + kTokensBeforeCut) * kLikelyTokenBytes;
  while (true) {
    const absl::string_view part = TextBeginning(text, bytes);
    LWQ_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, EncodeText(part));
    const int64_t size = static_cast<int64_t>(tokens.size());
    if (part.size() < text.size() && size < max_tokens + kTokensBeforeCut) {
      bytes *= 2;
      continue;
    }
    tokens.resize(static_cast<size_t>(std::min(size, max_tokens)));
    return tokens;
  }
}

std::optional<int32_t> RequestEncoder::bos() const {
  const bool wanted =
      mode_ == BosMode::kAlways || (mode_ == BosMode::kTokenizer && tokenizer_->adds_bos());
  if (!wanted || tokenizer_->bos_id() < 0) return std::nullopt;
  return tokenizer_->bos_id();
}

absl::StatusOr<EncodedPair> RequestEncoder::EncodePair(absl::string_view context,
                                                       absl::string_view continuation) const {
  EncodedPair pair;
  if (context.empty()) {
    LWQ_ASSIGN_OR_RETURN(pair.continuation, tokenizer_->Encode(continuation, false));
    pair.context = {prefix_token_};
    // A continuation that begins with the prefix token brings its own.
    if (pair.continuation.size() > 1 && pair.continuation.front() == prefix_token_) {
      pair.continuation.erase(pair.continuation.begin());
    }
  } else {
    const size_t end = EndOfWords(context);
    const std::string tail = absl::StrCat(context.substr(end), continuation);
    context = context.substr(0, end);
    LWQ_ASSIGN_OR_RETURN(const std::vector<int32_t> whole, EncodeText(absl::StrCat(context, tail)));
    LWQ_ASSIGN_OR_RETURN(pair.context, EncodeText(context));
    if (whole.size() > pair.context.size()) {
      pair.continuation.assign(whole.begin() + static_cast<ptrdiff_t>(pair.context.size()),
                               whole.end());
    }
    if (pair.context.empty()) pair.context = {prefix_token_};
  }
  if (pair.continuation.empty()) {
    return Failure(reasons::kEmptyContinuation,
                   absl::StrCat("the continuation \"", continuation.substr(0, 60),
                                "\" has no token of its own after its context"));
  }
  return pair;
}

std::vector<RollingWindow> RollingWindows(const std::vector<int32_t>& tokens, int32_t prefix_token,
                                          int64_t max_length) {
  std::vector<RollingWindow> windows;
  const int64_t size = static_cast<int64_t>(tokens.size());
  for (int64_t done = 0; done < size;) {
    const int64_t end = std::min(done + max_length, size);
    RollingWindow window;
    const int64_t begin = done == 0 ? 0 : end - 1 - max_length;
    if (done == 0) window.input.push_back(prefix_token);
    window.input.insert(window.input.end(), tokens.begin() + begin, tokens.begin() + end - 1);
    window.predicted.assign(tokens.begin() + done, tokens.begin() + end);
    windows.push_back(std::move(window));
    done = end;
  }
  return windows;
}

}  // namespace lwq
