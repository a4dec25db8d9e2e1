// SentencePiece's unigram model as Hugging Face's `Unigram` does it: of all ways to cut a word into
// tokens the one with the largest sum of scores. A character that is no token costs as much as the
// worst token and a penalty; runs of them become one unknown token, or their bytes' tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tokenizer/word_model.h"

namespace lwq {

class UnigramModel : public WordModel {
 public:
  // Tokens in order of their ids, with their scores. "TOKENIZER_INVALID" for tokens given twice,
  // longer than 1,024 bytes or with a score that is no number, and for an unknown token outside.
  static absl::StatusOr<std::unique_ptr<WordModel>> Create(
      std::vector<std::pair<std::string, double>> tokens, int64_t unk_id, bool byte_fallback);

  void EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const override;
  int32_t IdOf(absl::string_view token) const override;
  absl::string_view TokenOf(int32_t id) const override;
  int64_t num_tokens() const override { return static_cast<int64_t>(tokens_.size()); }
  int64_t id_end() const override { return num_tokens(); }
  bool may_cut_at_marks() const override { return false; }

 private:
  // The best way to cut what ends at a place of the word.
  struct Node {
    double score = 0;
    int64_t begin = -1;  // of its last token; -1: nothing ends here
    bool unknown = false;
  };

  UnigramModel() = default;
  std::vector<Node> BestCuts(absl::string_view word) const;
  // Calls found(size, id) for each token that `text` begins with, the shortest first.
  template <typename Found>
  void ForEachPrefix(absl::string_view text, const Found& found) const;
  void AppendPiece(absl::string_view piece, std::vector<int32_t>* ids) const;

  std::vector<std::pair<std::string, double>> tokens_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  std::vector<int32_t> sorted_;    // ids in order of their tokens' bytes
  std::vector<int32_t> byte_ids_;  // of <0x00> ... <0xFF>; empty unless all are there and wanted
  double unknown_score_ = 0;
  int32_t unk_id_ = 0;
};

}  // namespace lwq
