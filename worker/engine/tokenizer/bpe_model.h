// Byte-pair encoding with a ranked list of merges, as Hugging Face's `BPE` model does it: the pair
// of lowest rank is merged first, of equal ones the leftmost. O(n log n) in the length of a word,
// so that a whole book may be one word (the SentencePiece-style tokenizers have no pre-tokenizer).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tokenizer/word_model.h"

namespace lwq {

struct BpeOptions {
  std::string unk_token;       // empty: characters without a token are dropped
  bool fuse_unk = false;       // a run of unknown characters gives one unk token
  bool byte_fallback = false;  // <0xAB> tokens stand for the bytes of unknown characters
  bool ignore_merges = false;  // a word that is a token is not merged at all
};

class BpeModel : public WordModel {
 public:
  using Vocabulary = absl::flat_hash_map<std::string, int32_t>;

  // "TOKENIZER_INVALID" for ids out of range or given twice and for merges of tokens that do not
  // exist.
  static absl::StatusOr<std::unique_ptr<WordModel>> Create(
      Vocabulary vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
      BpeOptions options);

  void EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const override;
  int32_t IdOf(absl::string_view token) const override;
  absl::string_view TokenOf(int32_t id) const override;
  int64_t num_tokens() const override { return static_cast<int64_t>(vocabulary_.size()); }
  int64_t id_end() const override { return static_cast<int64_t>(tokens_.size()); }
  // Where no merge crosses the cut. Unknown characters fuse across it, so a model that has them
  // keeps its text whole.
  bool may_cut_at_marks() const override;

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  struct Symbol;

  BpeModel() = default;
  bool has_all_bytes() const;
  std::vector<Symbol> InitialSymbols(absl::string_view word) const;
  bool AppendBytes(absl::string_view character, std::vector<Symbol>* symbols) const;
  void MergeAll(std::vector<Symbol>* symbols) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  BpeOptions options_;
  Vocabulary vocabulary_;
  std::vector<std::string> tokens_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::vector<int32_t> byte_ids_;  // of <0x00> ... <0xFF>, -1 where missing; empty without fallback
  int32_t unk_id_ = -1;
  bool merges_across_marks_ = false;  // some merge makes a token with U+2581 inside
};

}  // namespace lwq
