// After tokenization_qwen.py of the published models, and tiktoken's own rule of joining.
#include "worker/engine/tokenizer/tiktoken.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tokenizer/json_reading.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

constexpr size_t kMaxTokenBytes = 1024;
constexpr int kNumExtras = 205;
constexpr char kPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

absl::Status Invalid(absl::string_view problem) {
  return Failure(reasons::kTokenizerInvalid, absl::StrCat(kTiktokenFile, ": ", problem));
}

using Ranks = absl::flat_hash_map<std::string, int32_t>;

// By rank.
absl::StatusOr<std::vector<std::string>> ReadTokens(absl::string_view text) {
  std::vector<std::pair<int64_t, std::string>> lines;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    auto& [rank, token] = lines.emplace_back();
    if (!absl::SimpleAtoi(parts.second, &rank) || !absl::Base64Unescape(parts.first, &token) ||
        token.empty() || token.size() > kMaxTokenBytes) {
      return Invalid(absl::StrCat("line ", number, " is not base64 of 1 to ", kMaxTokenBytes,
                                  " bytes, a blank and a rank: \"",
                                  absl::CHexEscape(line.substr(0, 60)), "\""));
    }
  }
  std::vector<std::string> tokens(lines.size());
  for (auto& [rank, token] : lines) {
    const bool is_new = rank >= 0 && rank < static_cast<int64_t>(tokens.size()) &&
                        tokens[static_cast<size_t>(rank)].empty();
    if (!is_new) {
      return Invalid(absl::StrCat("of ", tokens.size(), " tokens one has the rank ", rank,
                                  ", which is past them or another's"));
    }
    tokens[static_cast<size_t>(rank)] = std::move(token);
  }
  return tokens;
}

absl::StatusOr<Ranks> IndexTokens(const std::vector<std::string>& tokens) {
  Ranks ranks;
  ranks.reserve(tokens.size());
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    if (ranks.emplace(tokens[rank], static_cast<int32_t>(rank)).second) continue;
    return Invalid(
        absl::StrCat("the tokens ", ranks.at(tokens[rank]), " and ", rank, " are the same bytes"));
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (ranks.contains(std::string(1, static_cast<char>(byte)))) continue;
    return Invalid(absl::StrCat("the byte ", byte, " is no token"));
  }
  return ranks;
}

// Where `token` is cut when its bytes are joined, the lowest rank first, until two pieces are left;
// 0 where they never are two.
size_t CutOf(const std::string& token, const Ranks& ranks) {
  std::vector<size_t> begins(token.size() + 1);  // of the pieces, and the end
  for (size_t i = 0; i < begins.size(); ++i) begins[i] = i;
  const auto rank_of = [&](size_t i) {  // of pieces i and i + 1 together
    if (i + 2 >= begins.size()) return INT32_MAX;
    const auto it =
        ranks.find(absl::string_view(token).substr(begins[i], begins[i + 2] - begins[i]));
    return it == ranks.end() ? INT32_MAX : it->second;
  };
  std::vector<int32_t> joined(token.size());
  for (size_t i = 0; i < joined.size(); ++i) joined[i] = rank_of(i);
  while (begins.size() > 3) {
    const auto least = std::min_element(joined.begin(), joined.end());
    if (*least == INT32_MAX) return 0;
    const size_t i = static_cast<size_t>(least - joined.begin());
    begins.erase(begins.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    joined.erase(least + 1);
    joined[i] = rank_of(i);
    if (i > 0) joined[i - 1] = rank_of(i - 1);
  }
  return begins.size() == 3 ? begins[1] : 0;
}

// As byte-level models spell it: a printable character for each byte.
std::string Spelled(absl::string_view bytes) {
  std::string text;
  for (const char byte : bytes) AppendUtf8(CharOfByte(static_cast<uint8_t>(byte)), &text);
  return text;
}

Json AddedTokens(size_t first_id) {
  std::vector<std::string> contents = {kTiktokenEnd, "<|im_start|>", "<|im_end|>"};
  for (int i = 0; i < kNumExtras; ++i) contents.push_back(absl::StrCat("<|extra_", i, "|>"));
  Json added = Json::array();
  for (const std::string& content : contents) {
    added.push_back({{"id", first_id + added.size()},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", true},  // a text is normalized first, then searched
                     {"special", true}});
  }
  return added;
}

}  // namespace

absl::StatusOr<std::string> TokenizerJsonOfTiktoken(absl::string_view ranks) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> tokens, ReadTokens(ranks));
  LWQ_ASSIGN_OR_RETURN(const Ranks index, IndexTokens(tokens));
  Json vocabulary = Json::object(), merges = Json::array();
  bool all_are_made = true;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string& token = tokens[rank];
    vocabulary[Spelled(token)] = rank;
    if (token.size() == 1) continue;
    const size_t cut = CutOf(token, index);
    all_are_made = all_are_made && cut != 0;
    if (cut == 0) continue;  // a word of its own, never made of others
    const absl::string_view bytes = token;
    merges.push_back({Spelled(bytes.substr(0, cut)), Spelled(bytes.substr(cut))});
  }
  const Json steps = {{{"type", "Split"},
                       {"pattern", {{"Regex", kPattern}}},
                       {"behavior", "Isolated"},
                       {"invert", false}},
                      {{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", false},
                       {"use_regex", false}}};
  const Json file = {{"version", "1.0"},
                     {"added_tokens", AddedTokens(tokens.size())},
                     {"normalizer", {{"type", "NFC"}}},
                     {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
                     {"post_processor", nullptr},
                     {"decoder", {{"type", "ByteLevel"}}},
                     {"model",
                      {{"type", "BPE"},
                       {"byte_fallback", false},
                       // A word that is a token is that token, which merges may not make it.
                       {"ignore_merges", !all_are_made},
                       {"vocab", std::move(vocabulary)},
                       {"merges", std::move(merges)}}}};
  return file.dump() + "\n";
}

}  // namespace lwq
