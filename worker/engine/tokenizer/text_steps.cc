// See text_steps.h.
#include "worker/engine/tokenizer/text_steps.h"

#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "worker/engine/tokenizer/nfc.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

absl::StatusOr<std::string> ReplaceAll(const ReplaceStep& step, absl::string_view text) {
  std::vector<TextRange> matches;
  LWQ_RETURN_IF_ERROR(step.pattern.FindAll(text, &matches));
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  for (const TextRange& match : matches) {
    absl::StrAppend(&out, text.substr(at, match.begin - at), step.content);
    at = match.end;
  }
  absl::StrAppend(&out, text.substr(at));
  return out;
}

absl::StatusOr<std::string> Apply(const PrependStep& step, absl::string_view text) {
  return text.empty() ? std::string() : absl::StrCat(step.prefix, text);
}
absl::StatusOr<std::string> Apply(const ReplaceStep& step, absl::string_view text) {
  return ReplaceAll(step, text);
}
absl::StatusOr<std::string> Apply(const NfcStep&, absl::string_view text) {
  return NormalizeNfc(text);
}

void AppendPieces(const Piece& piece, const std::vector<TextRange>& ranges,
                  std::vector<Piece>* out) {
  for (const TextRange& range : ranges) {
    out->push_back({piece.text.substr(range.begin, range.end - range.begin),
                    piece.at_start && range.begin == 0});
  }
}

absl::Status Apply(const SplitStep& step, Piece piece, std::vector<Piece>* out) {
  std::vector<TextRange> matches;
  LWQ_RETURN_IF_ERROR(step.pattern.FindAll(piece.text, &matches));
  AppendPieces(piece, SplitByMatches(piece.text.size(), matches, step.behavior, step.invert), out);
  return absl::OkStatus();
}

absl::Status Apply(const ByteLevelStep& step, Piece piece, std::vector<Piece>* out) {
  if (step.add_prefix_space && !absl::StartsWith(piece.text, " ")) piece.text.insert(0, " ");
  const size_t first = out->size();
  if (step.pattern.has_value()) {
    std::vector<TextRange> matches;
    LWQ_RETURN_IF_ERROR(step.pattern->FindAll(piece.text, &matches));
    AppendPieces(piece, SplitByMatches(piece.text.size(), matches, SplitBehavior::kIsolated, false),
                 out);
  } else {
    out->push_back(std::move(piece));
  }
  for (size_t i = first; i < out->size(); ++i) {
    std::string mapped;
    mapped.reserve((*out)[i].text.size());
    for (const char c : (*out)[i].text) AppendUtf8(CharOfByte(static_cast<uint8_t>(c)), &mapped);
    (*out)[i].text = std::move(mapped);
  }
  return absl::OkStatus();
}

absl::Status Apply(const MetaspaceStep& step, Piece piece, std::vector<Piece>* out) {
  LWQ_ASSIGN_OR_RETURN(TextPattern blank, TextPattern::FromString(" "));
  LWQ_ASSIGN_OR_RETURN(piece.text,
                       ReplaceAll(ReplaceStep{std::move(blank), step.replacement}, piece.text));
  const bool wanted = step.prepend == MetaspaceStep::Prepend::kAlways ||
                      (step.prepend == MetaspaceStep::Prepend::kFirst && piece.at_start);
  if (wanted && !absl::StartsWith(piece.text, step.replacement)) {
    piece.text.insert(0, step.replacement);
  }
  if (!step.split) {
    out->push_back(std::move(piece));
    return absl::OkStatus();
  }
  LWQ_ASSIGN_OR_RETURN(const TextPattern mark, TextPattern::FromString(step.replacement));
  std::vector<TextRange> matches;
  LWQ_RETURN_IF_ERROR(mark.FindAll(piece.text, &matches));
  AppendPieces(piece,
               SplitByMatches(piece.text.size(), matches, SplitBehavior::kMergedWithNext, false),
               out);
  return absl::OkStatus();
}

std::string BytesOf(absl::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const int byte = ByteOfChar(NextCodePoint(token, &at));
    if (byte < 0) return std::string(token);  // an added token stands for itself
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte of "<0xAB>", or -1.
int FallbackByte(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>') return -1;
  const int high = HexDigit(token[3]), low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void Apply(const ByteLevelDecodeStep&, std::vector<std::string>* tokens) {
  std::string bytes;
  for (const std::string& token : *tokens) bytes += BytesOf(token);
  *tokens = {RepairUtf8(bytes)};
}
void Apply(const ReplaceStep& step, std::vector<std::string>* tokens) {
  for (std::string& token : *tokens) {
    absl::StatusOr<std::string> replaced = ReplaceAll(step, token);
    if (replaced.ok()) token = *std::move(replaced);
  }
}
// A run of byte tokens that is not UTF-8 gives one U+FFFD for each byte.
void Apply(const ByteFallbackStep&, std::vector<std::string>* tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (IsValidUtf8(bytes)) {
      out.push_back(bytes);
    } else {
      out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : *tokens) {
    const int byte = FallbackByte(token);
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  *tokens = std::move(out);
}
void Apply(const FuseStep&, std::vector<std::string>* tokens) {
  *tokens = {absl::StrJoin(*tokens, "")};
}
void Apply(const StripStep& step, std::vector<std::string>* tokens) {
  for (std::string& token : *tokens) {
    absl::string_view rest = token;
    for (int i = 0; i < step.start && absl::ConsumePrefix(&rest, step.content); ++i) {
    }
    for (int i = 0; i < step.stop && absl::ConsumeSuffix(&rest, step.content); ++i) {
    }
    token = std::string(rest);
  }
}
void Apply(const MetaspaceDecodeStep& step, std::vector<std::string>* tokens) {
  for (size_t i = 0; i < tokens->size(); ++i) {
    std::string& token = (*tokens)[i];
    if (i == 0 && step.drop_first && absl::StartsWith(token, step.replacement)) {
      token.erase(0, step.replacement.size());
    }
    std::string text;
    for (size_t at = 0; at < token.size();) {
      if (absl::StartsWith(absl::string_view(token).substr(at), step.replacement)) {
        text.push_back(' ');
        at += step.replacement.size();
      } else {
        text.push_back(token[at++]);
      }
    }
    token = std::move(text);
  }
}

}  // namespace

absl::StatusOr<std::string> Normalize(const std::vector<NormalizerStep>& steps,
                                      absl::string_view text) {
  std::string current(text);
  for (const NormalizerStep& step : steps) {
    LWQ_ASSIGN_OR_RETURN(current,
                         std::visit([&](const auto& s) { return Apply(s, current); }, step));
  }
  return current;
}

absl::Status PreTokenize(const std::vector<PreTokenizerStep>& steps, std::vector<Piece>* pieces) {
  for (const PreTokenizerStep& step : steps) {
    std::vector<Piece> cut;
    for (Piece& piece : *pieces) {
      if (piece.text.empty()) continue;
      LWQ_RETURN_IF_ERROR(
          std::visit([&](const auto& s) { return Apply(s, std::move(piece), &cut); }, step));
    }
    *pieces = std::move(cut);
  }
  return absl::OkStatus();
}

std::string DecodeTokens(const std::vector<DecoderStep>& steps, std::vector<std::string> tokens) {
  for (const DecoderStep& step : steps) {
    std::visit([&](const auto& s) { Apply(s, &tokens); }, step);
  }
  return RepairUtf8(absl::StrJoin(tokens, ""));
}

}  // namespace lwq
