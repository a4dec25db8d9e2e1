#include "worker/engine/tokenizer/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/reasons.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

constexpr size_t kMaxTokens = 4 << 20;
// What a text of one character repeated costs is its length times this.
constexpr size_t kMaxTokenBytes = 1024;
constexpr double kUnknownPenalty = 10;

absl::Status Invalid(absl::string_view token, absl::string_view what) {
  return Failure(reasons::kTokenizerInvalid, absl::StrCat("the token \"", token.substr(0, 60),
                                                          "\" of the Unigram model ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WordModel>> UnigramModel::Create(
    std::vector<std::pair<std::string, double>> tokens, int64_t unk_id, bool byte_fallback) {
  std::unique_ptr<UnigramModel> model(new UnigramModel());
  model->tokens_ = std::move(tokens);
  const int64_t count = model->num_tokens();
  if (unk_id < 0 || unk_id >= count || model->tokens_.size() > kMaxTokens) {
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat("a Unigram model has ", count, " tokens (at most ", kMaxTokens,
                                ") and the unknown one is ", unk_id));
  }
  model->unk_id_ = static_cast<int32_t>(unk_id);
  double worst = INFINITY;
  for (const auto& [token, score] : model->tokens_) {
    if (token.size() > kMaxTokenBytes) return Invalid(token, "is longer than 1,024 bytes");
    if (!std::isfinite(score)) return Invalid(token, "has a score that is not finite");
    const int32_t id = static_cast<int32_t>(model->ids_.size());
    if (!model->ids_.emplace(token, id).second) return Invalid(token, "is there twice");
    worst = std::min(worst, score);
  }
  model->unknown_score_ = worst - kUnknownPenalty;
  model->sorted_.resize(model->tokens_.size());
  std::iota(model->sorted_.begin(), model->sorted_.end(), 0);
  std::sort(model->sorted_.begin(), model->sorted_.end(),
            [&](int32_t a, int32_t b) { return model->TokenOf(a) < model->TokenOf(b); });
  for (int byte = 0; byte_fallback && byte < 256; ++byte) {
    const int32_t id = model->IdOf(absl::StrFormat("<0x%02X>", byte));
    if (id < 0) return Invalid(absl::StrFormat("<0x%02X>", byte), "is missing for byte_fallback");
    model->byte_ids_.push_back(id);
  }
  return model;
}

int32_t UnigramModel::IdOf(absl::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

absl::string_view UnigramModel::TokenOf(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return "";
  return tokens_[static_cast<size_t>(id)].first;
}

template <typename Found>
void UnigramModel::ForEachPrefix(absl::string_view text, const Found& found) const {
  // [first, last): the tokens that begin as the text does up to `size`.
  auto first = sorted_.begin(), last = sorted_.end();
  for (size_t size = 0; size < text.size(); ++size) {
    const uint8_t wanted = static_cast<uint8_t>(text[size]);
    const auto byte_at = [&](int32_t id) -> int {
      const absl::string_view token = TokenOf(id);
      return token.size() > size ? static_cast<uint8_t>(token[size]) : -1;
    };
    first = std::partition_point(first, last, [&](int32_t id) { return byte_at(id) < wanted; });
    last = std::partition_point(first, last, [&](int32_t id) { return byte_at(id) == wanted; });
    if (first == last) return;
    if (TokenOf(*first).size() == size + 1) found(size + 1, *first);
  }
}

std::vector<UnigramModel::Node> UnigramModel::BestCuts(absl::string_view word) const {
  std::vector<Node> nodes(word.size() + 1);
  for (size_t begin = 0; begin < word.size();) {
    const double so_far = nodes[begin].score;
    size_t next = begin;
    NextCodePoint(word, &next);
    const auto offer = [&](size_t end, double score, bool unknown) {
      Node& node = nodes[end];
      if (node.begin >= 0 && !(so_far + score > node.score)) return;
      node = {so_far + score, static_cast<int64_t>(begin), unknown};
    };
    bool has_character = false;
    ForEachPrefix(word.substr(begin), [&](size_t size, int32_t id) {
      offer(begin + size, tokens_[static_cast<size_t>(id)].second, id == unk_id_);
      has_character = has_character || size == next - begin;
    });
    if (!has_character) offer(next, unknown_score_, true);
    begin = next;
  }
  return nodes;
}

void UnigramModel::AppendPiece(absl::string_view piece, std::vector<int32_t>* ids) const {
  const int32_t id = IdOf(piece);
  if (id >= 0 || byte_ids_.empty()) {
    ids->push_back(id >= 0 ? id : unk_id_);
    return;
  }
  for (const char byte : piece) ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
}

void UnigramModel::EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  const std::vector<Node> nodes = BestCuts(word);
  std::vector<absl::string_view> pieces;  // the last first
  size_t unknown_end = 0;                 // of a run of unknown ones; 0: none
  const auto flush = [&](size_t begin) {
    if (unknown_end > 0) pieces.push_back(word.substr(begin, unknown_end - begin));
    unknown_end = 0;
  };
  for (size_t end = word.size(); end > 0;) {
    const size_t begin = static_cast<size_t>(nodes[end].begin);
    if (nodes[end].unknown) {
      if (unknown_end == 0) unknown_end = end;
    } else {
      flush(end);
      pieces.push_back(word.substr(begin, end - begin));
    }
    end = begin;
  }
  flush(0);
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) AppendPiece(*piece, ids);
}

}  // namespace lwq
