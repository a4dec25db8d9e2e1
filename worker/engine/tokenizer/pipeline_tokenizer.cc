// See pipeline_tokenizer.h. Order of work: Hugging Face `tokenizers`, Tokenizer::encode.
#include "worker/engine/tokenizer/pipeline_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

// Words longer than this are not worth remembering.
constexpr size_t kMaxCachedWordBytes = 64;

// Cuts in front of each U+2581 that follows another character.
std::vector<Piece> CutAtMarks(absl::string_view text) {
  constexpr absl::string_view kMark = "\u2581";
  std::vector<Piece> words;
  size_t begin = 0;
  for (size_t at = text.find(kMark); at != absl::string_view::npos;
       at = text.find(kMark, at + kMark.size())) {
    if (at > begin && !absl::EndsWith(text.substr(begin, at - begin), kMark)) {
      words.push_back({std::string(text.substr(begin, at - begin)), false});
      begin = at;
    }
  }
  if (begin < text.size()) words.push_back({std::string(text.substr(begin)), false});
  return words;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> PipelineTokenizer::Create(
    TokenizerPipeline pipeline, const TokenizerConfig& config) {
  std::unique_ptr<PipelineTokenizer> tokenizer(new PipelineTokenizer(std::move(pipeline)));
  LWQ_RETURN_IF_ERROR(tokenizer->Index(config));
  return tokenizer;
}

absl::Status PipelineTokenizer::Index(const TokenizerConfig& config) {
  vocab_size_ = pipeline_.model->id_end();
  for (const AddedToken& token : pipeline_.added_tokens) {
    added_content_.emplace(token.id, token.content);
    vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{token.id} + 1);
    if (token.normalized) {
      LWQ_ASSIGN_OR_RETURN(const std::string content,
                           Normalize(pipeline_.normalizer, token.content));
      normalized_matcher_.Add(token, content);
    } else {
      raw_matcher_.Add(token, token.content);
    }
  }
  // An exact short cut: words can be remembered, and a whole book is no single heap of pairs.
  cuts_at_marks_ = pipeline_.pre_tokenizer.empty() && pipeline_.model->may_cut_at_marks();
  bos_id_ = IdOf(config.bos_token);
  eos_id_ = IdOf(config.eos_token);
  const bool wants_bos = config.add_bos.value_or(false), wants_eos = config.add_eos.value_or(false);
  if ((wants_bos && bos_id_ < 0) || (wants_eos && eos_id_ < 0)) {
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat("tokenizer_config.json: add_", wants_bos ? "bos" : "eos",
                                "_token is true, but its token is not in the vocabulary"));
  }
  if (config.add_bos.has_value()) {
    pipeline_.prefix = wants_bos ? std::vector<int32_t>{bos_id_} : std::vector<int32_t>{};
  }
  if (config.add_eos.has_value()) {
    pipeline_.suffix = wants_eos ? std::vector<int32_t>{eos_id_} : std::vector<int32_t>{};
  }
  if (bos_id_ < 0 && config.bos_token.empty() && !pipeline_.prefix.empty()) {
    bos_id_ = pipeline_.prefix.front();
  }
  return absl::OkStatus();
}

int32_t PipelineTokenizer::IdOf(absl::string_view token) const {
  if (token.empty()) return -1;
  for (const AddedToken& added : pipeline_.added_tokens) {
    if (added.content == token) return added.id;
  }
  return pipeline_.model->IdOf(token);
}

bool PipelineTokenizer::adds_bos() const {
  return bos_id_ >= 0 && !pipeline_.prefix.empty() && pipeline_.prefix.front() == bos_id_;
}

absl::Status PipelineTokenizer::EncodeNormalized(absl::string_view text, bool at_start,
                                                 std::vector<int32_t>* ids) const {
  if (pipeline_.pre_tokenizer.empty() && !cuts_at_marks_) {
    pipeline_.model->EncodeWord(text, ids);
    return absl::OkStatus();
  }
  std::vector<Piece> words = {{std::string(text), at_start}};
  LWQ_RETURN_IF_ERROR(PreTokenize(pipeline_.pre_tokenizer, &words));
  if (cuts_at_marks_) words = CutAtMarks(text);
  absl::flat_hash_map<absl::string_view, std::vector<int32_t>> cache;
  for (const Piece& word : words) {
    if (word.text.size() > kMaxCachedWordBytes) {
      pipeline_.model->EncodeWord(word.text, ids);
      continue;
    }
    const auto [entry, is_new] = cache.try_emplace(word.text);
    if (is_new) pipeline_.model->EncodeWord(word.text, &entry->second);
    ids->insert(ids->end(), entry->second.begin(), entry->second.end());
  }
  return absl::OkStatus();
}

absl::Status PipelineTokenizer::EncodeText(absl::string_view text, bool at_start,
                                           std::vector<int32_t>* ids) const {
  LWQ_ASSIGN_OR_RETURN(const std::string normalized, Normalize(pipeline_.normalizer, text));
  for (const TextSpan& span : normalized_matcher_.Split(normalized)) {
    if (span.token_id >= 0) {
      ids->push_back(span.token_id);
      continue;
    }
    const absl::string_view part =
        absl::string_view(normalized).substr(span.begin, span.end - span.begin);
    LWQ_RETURN_IF_ERROR(EncodeNormalized(part, at_start && span.begin == 0, ids));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> PipelineTokenizer::Encode(absl::string_view text,
                                                               bool add_special_tokens) const {
  LWQ_RETURN_IF_ERROR(CheckUtf8(text));
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = pipeline_.prefix;
  for (const TextSpan& span : raw_matcher_.Split(text)) {
    if (span.token_id >= 0) {
      ids.push_back(span.token_id);
    } else {
      LWQ_RETURN_IF_ERROR(
          EncodeText(text.substr(span.begin, span.end - span.begin), span.begin == 0, &ids));
    }
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), pipeline_.suffix.begin(), pipeline_.suffix.end());
  }
  return ids;
}

std::string PipelineTokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const auto it = added_content_.find(id);
    tokens.emplace_back(it != added_content_.end() ? it->second : pipeline_.model->TokenOf(id));
  }
  if (!pipeline_.has_decoder) return absl::StrJoin(tokens, " ");
  return DecodeTokens(pipeline_.decoder, std::move(tokens));
}

}  // namespace lwq
