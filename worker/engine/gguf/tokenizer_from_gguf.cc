#include "worker/engine/gguf/tokenizer_from_gguf.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/gguf/gguf_keys.h"
#include "worker/engine/gguf/pre_tokenizer.h"
#include "worker/engine/gguf/spm_merges.h"
#include "worker/engine/gguf/token_type.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

// What llama.cpp calls kinds of tokenizers.
constexpr char kSentencePieceBpe[] = "llama", kByteLevelBpe[] = "gpt2";
constexpr char kKeys[] = "tokenizer.ggml";
constexpr size_t kMostTokenBytes = 1024;
constexpr size_t kMostChatTemplates = 64;
constexpr char kMark[] = "\xe2\x96\x81";

absl::Status Unsupported(absl::string_view what) {
  return Failure(reasons::kGgufTokenizer, absl::StrCat("the tokenizer of a GGUF file: ", what,
                                                       "; give the model's safetensors files"));
}
absl::Status Invalid(absl::string_view problem) {
  return Failure(reasons::kTokenizerInvalid,
                 absl::StrCat("the tokenizer of a GGUF file: ", problem));
}

// nlohmann throws at text that is not UTF-8.
absl::StatusOr<std::string> Dump(const Json& json) {
  try {
    return json.dump(-1) + "\n";
  } catch (const Json::exception&) {
    return Invalid("a token or the chat template is not UTF-8");
  }
}

// The tokens with their types, checked. Scores lie in the metadata.
struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  const std::vector<float>* scores = nullptr;  // null where there are none
  bool sentencepiece = false;                  // llama.cpp's "llama"; otherwise "gpt2"
  // Of SentencePiece: whether a text gets a mark in front. Then what users defined cannot be found
  // in the text with its marks, as SentencePiece does: a text that begins with one has no mark
  // there. It is found in the text as it was, and a blank in it is a blank.
  bool prefix = false;

  const std::string& Text(size_t id) const { return texts[id]; }
  size_t size() const { return texts.size(); }
  bool IsFill(size_t id) const {
    return types[id] == kUnused && Text(id) == absl::StrCat("[PAD", id, "]");
  }
  // Found in a text before the model sees it.
  bool IsAdded(size_t id) const {
    return types[id] == kControl || types[id] == kUserDefined || types[id] == kUnknown;
  }
};

absl::StatusOr<Vocabulary> ReadVocabulary(const GgufMetadata& metadata) {
  Vocabulary vocabulary;
  const std::string* model = metadata.Get<std::string>("tokenizer.ggml.model");
  const auto* tokens = metadata.Get<std::vector<std::string>>("tokenizer.ggml.tokens");
  if (model == nullptr || tokens == nullptr || tokens->empty()) {
    return Failure(reasons::kTokenizerMissing,
                   "the GGUF file has no tokenizer: no keys tokenizer.ggml.model and .tokens");
  }
  vocabulary.sentencepiece = *model == kSentencePieceBpe;
  if (!vocabulary.sentencepiece && *model != kByteLevelBpe) {
    return Unsupported(absl::StrCat("its kind \"", absl::CHexEscape(model->substr(0, 64)),
                                    "\" is none of llama, gpt2"));
  }
  const size_t size = tokens->size();
  const auto* types = metadata.Get<std::vector<int32_t>>("tokenizer.ggml.token_type");
  vocabulary.types = types != nullptr ? *types : std::vector<int32_t>(size, kNormal);
  vocabulary.scores = metadata.Get<std::vector<float>>("tokenizer.ggml.scores");
  if (vocabulary.types.size() != size ||
      (vocabulary.scores != nullptr && vocabulary.scores->size() != size)) {
    return Failure(reasons::kGgufMetadata, absl::StrCat("the GGUF file has ", size,
                                                        " tokens, and types or scores of another "
                                                        "number"));
  }
  vocabulary.texts = *tokens;
  if (vocabulary.sentencepiece) {
    LWQ_ASSIGN_OR_RETURN(vocabulary.prefix,
                         GgufKeys(metadata, kKeys).Bool("add_space_prefix", true));
  }
  for (size_t id = 0; vocabulary.prefix && id < size; ++id) {
    std::string& text = vocabulary.texts[id];
    if (vocabulary.types[id] == kUserDefined) text = absl::StrReplaceAll(text, {{kMark, " "}});
  }
  absl::flat_hash_set<absl::string_view> seen;
  for (const std::string& token : vocabulary.texts) {
    if (token.size() > kMostTokenBytes) {
      return Invalid(
          absl::StrCat("a token has ", token.size(), " bytes, at most ", kMostTokenBytes));
    }
    if (seen.insert(token).second) continue;
    return Invalid(
        absl::StrCat("the token \"", absl::CHexEscape(token.substr(0, 64)), "\" is there twice"));
  }
  return vocabulary;
}

Json AddedTokens(const Vocabulary& vocabulary, bool normalized) {
  Json added = Json::array();
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.IsAdded(id)) continue;
    const bool special = vocabulary.types[id] != kUserDefined;
    if (vocabulary.Text(id).empty()) continue;
    added.push_back({{"id", id},
                     {"content", vocabulary.Text(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", !special && normalized},
                     {"special", special}});
  }
  return added;
}

Json VocabularyJson(const Vocabulary& vocabulary) {
  Json::object_t vocab;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.IsFill(id)) vocab.emplace(vocabulary.Text(id), id);
  }
  return vocab;
}

Json Bpe(const Vocabulary& vocabulary, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", VocabularyJson(vocabulary)},
          {"merges", std::move(merges)}};
}

Json Step(const char* type) { return {{"type", type}}; }
Json Replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// The id under a key, -1 where there is none. Files are about that say "no such token" by an id
// past the vocabulary's end, 2^32 - 1 mostly; llama.cpp takes none then.
absl::StatusOr<int64_t> IdOf(const Vocabulary& vocabulary, GgufKeys& keys, const char* key) {
  constexpr int64_t kLargest = std::numeric_limits<uint32_t>::max();
  LWQ_ASSIGN_OR_RETURN(const int64_t id, keys.Whole(key, -1, kLargest, -1));
  return id < static_cast<int64_t>(vocabulary.size()) ? id : -1;
}

// SentencePiece's: blanks are marks, unknown characters bytes.
absl::StatusOr<Json> SentencePieceJson(const Vocabulary& vocabulary, GgufKeys& keys) {
  if (vocabulary.scores == nullptr) {
    return Failure(reasons::kGgufMetadata, "the GGUF file has no key tokenizer.ggml.scores");
  }
  const bool prefix = vocabulary.prefix;
  LWQ_ASSIGN_OR_RETURN(const bool trims, keys.Bool("remove_extra_whitespaces", false));
  if (trims) return Unsupported("it takes out blanks");
  std::vector<ScoredPiece> pieces;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const int32_t type = vocabulary.types[id];
    const float score = (*vocabulary.scores)[id];
    if (!std::isfinite(score)) return Invalid("a score is NaN or infinite");
    pieces.push_back(
        {vocabulary.Text(id), score, type == kNormal || (type == kUserDefined && !prefix)});
  }
  LWQ_ASSIGN_OR_RETURN(auto pairs, MergesByScore(pieces));
  Json merges = Json::array();
  for (auto& [left, right] : pairs) {
    merges.push_back(Json::array({std::move(left), std::move(right)}));
  }
  Json json;
  json["model"] = Bpe(vocabulary, std::move(merges));
  json["model"]["fuse_unk"] = true;
  json["model"]["byte_fallback"] = true;
  LWQ_ASSIGN_OR_RETURN(const int64_t unknown, IdOf(vocabulary, keys, "unknown_token_id"));
  if (unknown >= 0) json["model"]["unk_token"] = vocabulary.Text(static_cast<size_t>(unknown));
  Json normalizers = Json::array();
  if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kMark}});
  normalizers.push_back(Replace(" ", kMark));
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
  json["pre_tokenizer"] = nullptr;
  Json decoders = Json::array({Replace(kMark, " "), Step("ByteFallback"), Step("Fuse")});
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
  json["added_tokens"] = AddedTokens(vocabulary, /*normalized=*/!prefix);
  return json;
}

absl::StatusOr<Json> ByteLevelJson(const Vocabulary& vocabulary, const GgufMetadata& metadata,
                                   const StepsBeforeModel& steps) {
  const auto* merges = metadata.Get<std::vector<std::string>>("tokenizer.ggml.merges");
  if (merges == nullptr) {
    return Failure(reasons::kGgufMetadata, "the GGUF file has no key tokenizer.ggml.merges");
  }
  Json pairs = Json::array();
  for (const std::string& merge : *merges) {
    const size_t blank = merge.find(' ', 1);
    if (blank == std::string::npos) return Invalid("a merge is no pair");
    pairs.push_back(Json::array({merge.substr(0, blank), merge.substr(blank + 1)}));
  }
  Json json;
  json["model"] = Bpe(vocabulary, std::move(pairs));
  json["model"]["ignore_merges"] = steps.ignore_merges;
  json["normalizer"] = Json::parse(steps.normalizer);
  json["pre_tokenizer"] = Json::parse(steps.pre_tokenizer);
  json["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  json["added_tokens"] = AddedTokens(vocabulary, /*normalized=*/false);
  return json;
}

absl::StatusOr<StepsBeforeModel> StepsOf(const Vocabulary& vocabulary, GgufKeys& keys) {
  if (vocabulary.sentencepiece) {
    StepsBeforeModel steps;
    steps.adds_bos = true;
    return steps;
  }
  LWQ_ASSIGN_OR_RETURN(const std::string pre, keys.Text("pre", "(none)"));
  return StepsOfPreTokenizer(pre);
}

// Tokens that are put around a text.
struct Around {
  bool bos = false, eos = false;
};

absl::StatusOr<Around> AroundOf(const StepsBeforeModel& steps, GgufKeys& keys) {
  Around around;
  LWQ_ASSIGN_OR_RETURN(around.bos, keys.Bool("add_bos_token", steps.adds_bos));
  LWQ_ASSIGN_OR_RETURN(around.eos, keys.Bool("add_eos_token", false));
  return around;
}

absl::StatusOr<Json> PostProcessor(const Vocabulary& vocabulary, const Around& around,
                                   GgufKeys& keys) {
  Json single = Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}});
  Json specials = Json::object();
  const auto special = [&](const char* key) -> absl::StatusOr<Json> {
    LWQ_ASSIGN_OR_RETURN(const int64_t id, IdOf(vocabulary, keys, key));
    if (id < 0) return Invalid(absl::StrCat("it adds a token to texts that no ", key, " names"));
    const std::string& text = vocabulary.Text(static_cast<size_t>(id));
    specials[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return Json{{"SpecialToken", {{"id", text}, {"type_id", 0}}}};
  };
  if (around.bos) {
    LWQ_ASSIGN_OR_RETURN(Json token, special("bos_token_id"));
    single.insert(single.begin(), std::move(token));
  }
  if (around.eos) {
    LWQ_ASSIGN_OR_RETURN(Json token, special("eos_token_id"));
    single.push_back(std::move(token));
  }
  if (specials.empty()) return Json();
  Json pair = single;
  for (const Json& token : single) pair.push_back(token);
  for (size_t i = single.size(); i < pair.size(); ++i) {
    for (auto& part : pair[i]) part["type_id"] = 1;
    if (pair[i].contains("Sequence")) pair[i]["Sequence"]["id"] = "B";
  }
  return Json{{"type", "TemplateProcessing"},
              {"single", std::move(single)},
              {"pair", std::move(pair)},
              {"special_tokens", std::move(specials)}};
}

// One as a text; several, named, as transformers lists them.
absl::Status SetChatTemplates(const GgufMetadata& metadata, Json& config) {
  const std::string* chosen = metadata.Get<std::string>("tokenizer.chat_template");
  const auto* names = metadata.Get<std::vector<std::string>>("tokenizer.chat_templates");
  if (names == nullptr || names->empty()) {
    if (chosen != nullptr) config["chat_template"] = *chosen;
    return absl::OkStatus();
  }
  // A name that is there again and again would bring its template each time.
  if (names->size() > kMostChatTemplates) {
    return Invalid(
        absl::StrCat("it has ", names->size(), " chat templates, at most ", kMostChatTemplates));
  }
  absl::flat_hash_set<absl::string_view> seen;
  Json list = Json::array();
  if (chosen != nullptr) list.push_back({{"name", "default"}, {"template", *chosen}});
  for (const std::string& name : *names) {
    if (!seen.insert(name).second) return Invalid("a chat template is there twice");
    const auto* text = metadata.Get<std::string>(absl::StrCat("tokenizer.chat_template.", name));
    if (text != nullptr) list.push_back({{"name", name}, {"template", *text}});
  }
  config["chat_template"] = std::move(list);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> GgufTokenizerJson(const GgufMetadata& metadata) {
  LWQ_ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(metadata));
  GgufKeys keys(metadata, kKeys);
  LWQ_ASSIGN_OR_RETURN(const StepsBeforeModel steps, StepsOf(vocabulary, keys));
  Json json;
  if (vocabulary.sentencepiece) {
    LWQ_ASSIGN_OR_RETURN(json, SentencePieceJson(vocabulary, keys));
  } else {
    LWQ_ASSIGN_OR_RETURN(json, ByteLevelJson(vocabulary, metadata, steps));
  }
  LWQ_ASSIGN_OR_RETURN(const Around around, AroundOf(steps, keys));
  LWQ_ASSIGN_OR_RETURN(json["post_processor"], PostProcessor(vocabulary, around, keys));
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  return Dump(json);
}

absl::StatusOr<std::string> GgufTokenizerConfigJson(const GgufMetadata& metadata) {
  LWQ_ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(metadata));
  GgufKeys keys(metadata, kKeys);
  LWQ_ASSIGN_OR_RETURN(const StepsBeforeModel steps, StepsOf(vocabulary, keys));
  LWQ_ASSIGN_OR_RETURN(const Around around, AroundOf(steps, keys));
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", around.bos},
                 {"add_eos_token", around.eos}};
  for (const auto& [field, key] :
       {std::pair("bos_token", "bos_token_id"), std::pair("eos_token", "eos_token_id"),
        std::pair("unk_token", "unknown_token_id"), std::pair("pad_token", "padding_token_id")}) {
    LWQ_ASSIGN_OR_RETURN(const int64_t id, IdOf(vocabulary, keys, key));
    if (id >= 0) config[field] = vocabulary.Text(static_cast<size_t>(id));
  }
  LWQ_RETURN_IF_ERROR(SetChatTemplates(metadata, config));
  return Dump(config);
}

}  // namespace lwq
