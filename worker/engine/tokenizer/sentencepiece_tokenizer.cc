// See sentencepiece_tokenizer.h.
#include "worker/engine/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tokenizer/sentencepiece_model.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

// A second normalizer_spec (field 3 of ModelProto) with add_dummy_prefix (its field 3) false: a
// protobuf parser merges it into the first.
constexpr char kNoDummyPrefix[] = "\x1A\x02\x18\x00";

class SentencePieceTokenizer : public Tokenizer {
 public:
  absl::Status Load(const std::string& serialized, const TokenizerConfig& config);

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override { return vocab_size_; }
  int32_t bos_id() const override { return bos_id_; }
  int32_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return add_bos_; }

 private:
  absl::Status LoadModel(const std::string& serialized);
  absl::Status AddTokens(const TokenizerConfig& config);
  int32_t IdOf(const std::string& token) const;

  SentencePieceModel model_;
  AddedTokenMatcher matcher_;
  std::vector<AddedToken> added_;
  bool legacy_ = true;
  bool add_bos_ = true;
  bool add_eos_ = false;
  int64_t vocab_size_ = 0;
  int32_t bos_id_ = -1;
  int32_t eos_id_ = -1;
};

absl::Status SentencePieceTokenizer::LoadModel(const std::string& serialized) {
  std::string model = serialized;
  if (!legacy_) model.append(kNoDummyPrefix, sizeof(kNoDummyPrefix) - 1);
  std::string error;
  if (model_.Load(model, &error)) return absl::OkStatus();
  return Failure(reasons::kTokenizerInvalid,
                 absl::StrCat("tokenizer.model is not a readable SentencePiece model: ", error));
}

int32_t SentencePieceTokenizer::IdOf(const std::string& token) const {
  if (token.empty()) return -1;
  for (const AddedToken& added : added_) {
    if (added.content == token) return added.id;
  }
  return model_.IdOf(token);
}

absl::Status SentencePieceTokenizer::AddTokens(const TokenizerConfig& config) {
  std::vector<AddedToken> tokens;
  for (const int id : {model_.unk_id(), model_.bos_id(), model_.eos_id()}) {
    if (id >= 0) tokens.push_back({.id = id, .content = model_.PieceOf(id), .special = true});
  }
  // The configuration's own entry for a token stands before the model's.
  std::vector<AddedToken> all = config.added_tokens;
  for (AddedToken& token : tokens) {
    const auto same = [&](const AddedToken& other) { return other.content == token.content; };
    if (std::none_of(all.begin(), all.end(), same)) all.push_back(std::move(token));
  }
  for (const AddedToken& token : all) {
    const int64_t size = model_.size();
    const bool in_model = token.id < size && model_.PieceOf(token.id) == token.content;
    if (!in_model && (token.id < size || token.id > size + static_cast<int64_t>(all.size()))) {
      return Failure(
          reasons::kTokenizerInvalid,
          absl::StrCat("tokenizer_config.json: the added token \"", token.content.substr(0, 60),
                       "\" has the id ", token.id, ", but tokenizer.model has ", size,
                       " pieces and another one there"));
    }
    matcher_.Add(token, token.content);
    vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{token.id} + 1);
  }
  added_ = std::move(all);
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::Load(const std::string& serialized,
                                          const TokenizerConfig& config) {
  legacy_ = config.legacy;
  LWQ_RETURN_IF_ERROR(LoadModel(serialized));
  vocab_size_ = model_.size();
  LWQ_RETURN_IF_ERROR(AddTokens(config));
  bos_id_ = config.bos_token.empty() ? model_.bos_id() : IdOf(config.bos_token);
  eos_id_ = config.eos_token.empty() ? model_.eos_id() : IdOf(config.eos_token);
  add_bos_ = config.add_bos.value_or(bos_id_ >= 0);
  add_eos_ = config.add_eos.value_or(false);
  if ((add_bos_ && bos_id_ < 0) || (add_eos_ && eos_id_ < 0)) {
    return Failure(reasons::kTokenizerInvalid,
                   "tokenizer_config.json asks for a begin or end token that "
                   "tokenizer.model does not have");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::Encode(absl::string_view text,
                                                                    bool add_special_tokens) const {
  LWQ_RETURN_IF_ERROR(CheckUtf8(text));
  std::vector<int32_t> ids;
  if (add_special_tokens && add_bos_) ids.push_back(bos_id_);
  for (const TextSpan& span : matcher_.Split(text)) {
    if (span.token_id >= 0) {
      ids.push_back(span.token_id);
      continue;
    }
    std::string part(text.substr(span.begin, span.end - span.begin));
    if (!legacy_ && span.begin == 0) part.insert(0, "\u2581");
    std::vector<int> pieces;
    std::string error;
    if (!model_.Encode(part, &pieces, &error)) {  // of a damaged model, which loads all the same
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("tokenizer.model cannot encode a text: ", error));
    }
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }
  if (add_special_tokens && add_eos_) ids.push_back(eos_id_);
  return ids;
}

std::string SentencePieceTokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::string text;
  std::vector<int> run;
  const auto flush = [&] {
    if (run.empty()) return;
    // The model drops the blank in front of what it is given; only the text's own is wanted gone.
    const bool blank = !text.empty() && model_.PieceOf(run.front()).rfind("\u2581", 0) == 0;
    absl::StrAppend(&text, blank ? " " : "", model_.Decode(run));
    run.clear();
  };
  for (const int32_t id : ids) {
    const auto it = std::find_if(added_.begin(), added_.end(),
                                 [id](const AddedToken& token) { return token.id == id; });
    if (it == added_.end() && id >= 0 && id < model_.size()) {
      run.push_back(id);
      continue;
    }
    flush();
    if (it != added_.end()) text += it->content;
  }
  flush();
  return RepairUtf8(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(
    const std::string& serialized, const TokenizerConfig& config) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  LWQ_RETURN_IF_ERROR(tokenizer->Load(serialized, config));
  return tokenizer;
}

}  // namespace lwq
