// A tokenizer.json at work: added tokens, normalizer, pre-tokenizer, model, what is put around,
// decoder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/tokenizer/added_tokens.h"
#include "worker/engine/tokenizer/text_steps.h"
#include "worker/engine/tokenizer/tokenizer.h"
#include "worker/engine/tokenizer/tokenizer_config.h"
#include "worker/engine/tokenizer/word_model.h"

namespace lwq {

struct TokenizerPipeline {
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<DecoderStep> decoder;
  bool has_decoder = false;  // without one, tokens are joined by blanks
  // What the post-processor puts around the text.
  std::vector<int32_t> prefix, suffix;
  std::unique_ptr<WordModel> model;
};

class PipelineTokenizer : public Tokenizer {
 public:
  // "TOKENIZER_INVALID" when the configuration names tokens that do not exist.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerPipeline pipeline,
                                                           const TokenizerConfig& config);

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override { return vocab_size_; }
  int32_t bos_id() const override { return bos_id_; }
  int32_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override;

 private:
  explicit PipelineTokenizer(TokenizerPipeline pipeline) : pipeline_(std::move(pipeline)) {}
  absl::Status Index(const TokenizerConfig& config);
  int32_t IdOf(absl::string_view token) const;
  absl::Status EncodeText(absl::string_view text, bool at_start, std::vector<int32_t>* ids) const;
  absl::Status EncodeNormalized(absl::string_view text, bool at_start,
                                std::vector<int32_t>* ids) const;

  TokenizerPipeline pipeline_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  absl::flat_hash_map<int32_t, std::string> added_content_;
  bool cuts_at_marks_ = false;
  int64_t vocab_size_ = 0;
  int32_t bos_id_ = -1;
  int32_t eos_id_ = -1;
};

}  // namespace lwq
