// See bpe_model.h.
#include "worker/engine/tokenizer/bpe_model.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/reasons.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

constexpr int64_t kMaxId = 4 << 20;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// U+2581, SentencePiece's blank, after another character.
bool HasInnerMark(absl::string_view token) {
  constexpr absl::string_view kMark = "\u2581";
  for (size_t at = token.find(kMark, 1); at != absl::string_view::npos;
       at = token.find(kMark, at + 1)) {
    if (at < kMark.size() || token.substr(at - kMark.size(), kMark.size()) != kMark) return true;
  }
  return false;
}

// Shortens text taken from a file for a message.
std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", text.substr(0, 60), text.size() > 60 ? "...\"" : "\"");
}

}  // namespace

struct BpeModel::Symbol {
  int32_t id;    // -1: merged away
  int32_t prev;  // -1: first
  int32_t next;  // -1: last
};

absl::StatusOr<std::unique_ptr<WordModel>> BpeModel::Create(
    Vocabulary vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
    BpeOptions options) {
  std::unique_ptr<BpeModel> owned(new BpeModel());
  BpeModel& model = *owned;
  model.options_ = std::move(options);
  model.vocabulary_ = std::move(vocabulary);
  std::vector<bool> seen;
  for (const auto& [token, id] : model.vocabulary_) {
    if (id < 0 || id >= kMaxId) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("the token ", Quoted(token), " has the id ", id,
                                  "; ids from 0 to ", kMaxId - 1, " are accepted"));
    }
    if (static_cast<size_t>(id) >= model.tokens_.size()) {
      model.tokens_.resize(id + 1);
      seen.resize(id + 1);
    }
    if (seen[id]) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("the id ", id, " is given to the tokens ", Quoted(token), " and ",
                                  Quoted(model.tokens_[id])));
    }
    seen[id] = true;
    model.tokens_[id] = token;
  }
  std::string merged;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    merged = absl::StrCat(left, right);
    const int32_t left_id = model.IdOf(left), right_id = model.IdOf(right), id = model.IdOf(merged);
    if (left_id < 0 || right_id < 0 || id < 0) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("merge ", rank, " (", Quoted(left), " and ", Quoted(right), "): ",
                                  Quoted(left_id < 0    ? left
                                         : right_id < 0 ? right
                                                        : merged),
                                  " is not in the vocabulary"));
    }
    if (HasInnerMark(merged)) model.merges_across_marks_ = true;
    model.merges_[PairKey(left_id, right_id)] = {static_cast<int32_t>(rank), id};
  }
  if (!model.options_.unk_token.empty()) {
    model.unk_id_ = model.IdOf(model.options_.unk_token);
    if (model.unk_id_ < 0) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("the unknown token ", Quoted(model.options_.unk_token),
                                  " is not in the vocabulary"));
    }
  }
  if (model.options_.byte_fallback) {
    for (int b = 0; b < 256; ++b) {
      model.byte_ids_.push_back(model.IdOf(absl::StrFormat("<0x%02X>", b)));
    }
  }
  return owned;
}

int32_t BpeModel::IdOf(absl::string_view token) const {
  const auto it = vocabulary_.find(token);
  return it == vocabulary_.end() ? -1 : it->second;
}

bool BpeModel::has_all_bytes() const {
  return !byte_ids_.empty() &&
         std::none_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id < 0; });
}

bool BpeModel::may_cut_at_marks() const {
  return !merges_across_marks_ && !options_.ignore_merges &&
         (options_.unk_token.empty() || has_all_bytes());
}

absl::string_view BpeModel::TokenOf(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return "";
  return tokens_[id];
}

const BpeModel::Merge* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

// False, and nothing appended, when a byte of the character has no token.
bool BpeModel::AppendBytes(absl::string_view character, std::vector<Symbol>* symbols) const {
  if (byte_ids_.empty()) return false;
  for (const char c : character) {
    if (byte_ids_[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (const char c : character) symbols->push_back({byte_ids_[static_cast<uint8_t>(c)], 0, 0});
  return true;
}

std::vector<BpeModel::Symbol> BpeModel::InitialSymbols(absl::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  // An unknown character is held back, so that the next ones can be fused with it.
  bool unknown_pending = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    NextCodePoint(word, &at);
    const absl::string_view character = word.substr(begin, at - begin);
    const int32_t id = IdOf(character);
    if (id >= 0) {
      if (unknown_pending) symbols.push_back({unk_id_, 0, 0});
      unknown_pending = false;
      symbols.push_back({id, 0, 0});
    } else if (!AppendBytes(character, &symbols) && unk_id_ >= 0) {
      if (unknown_pending && !options_.fuse_unk) symbols.push_back({unk_id_, 0, 0});
      unknown_pending = true;
    }
  }
  if (unknown_pending) symbols.push_back({unk_id_, 0, 0});
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].prev = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  return symbols;
}

void BpeModel::MergeAll(std::vector<Symbol>* symbols) const {
  // (rank, position of the left symbol, merged id)
  using Candidate = std::tuple<int32_t, int32_t, int32_t>;
  std::vector<Candidate> heap;
  const auto later = std::greater<Candidate>();
  std::vector<Symbol>& s = *symbols;
  for (size_t i = 0; i + 1 < s.size(); ++i) {
    const Merge* merge = FindMerge(s[i].id, s[i + 1].id);
    if (merge != nullptr) heap.push_back({merge->rank, static_cast<int32_t>(i), merge->id});
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto consider = [&](int32_t left) {
    const Merge* merge = FindMerge(s[left].id, s[s[left].next].id);
    if (merge == nullptr) return;
    heap.push_back({merge->rank, left, merge->id});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const auto [rank, at, id] = heap.back();
    heap.pop_back();
    if (s[at].id < 0 || s[at].next < 0) continue;
    Symbol& right = s[s[at].next];
    // The pair may have changed since it was queued.
    const Merge* merge = FindMerge(s[at].id, right.id);
    if (merge == nullptr || merge->id != id) continue;
    s[at].id = id;
    s[at].next = right.next;
    right.id = -1;
    if (s[at].next >= 0) s[s[at].next].prev = at;
    if (s[at].prev >= 0) consider(s[at].prev);
    if (s[at].next >= 0) consider(at);
  }
}

void BpeModel::EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    const int32_t id = IdOf(word);
    if (id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  std::vector<Symbol> symbols = InitialSymbols(word);
  if (symbols.size() > 1) MergeAll(&symbols);
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    ids->push_back(symbols[i].id);
  }
}

}  // namespace lwq
