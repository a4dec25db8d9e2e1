#include "worker/engine/gguf/gguf_tokenizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/gguf/pre_tokenizer.h"
#include "worker/engine/gguf/sentencepiece_proto.h"
#include "worker/engine/gguf/token_type.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

constexpr float kAddedTokenScore = -1000;
constexpr float kUnusedTokenScore = -10000;

absl::Status Invalid(absl::string_view problem) {
  return Failure(reasons::kTokenizerInvalid, problem);
}
absl::Status Unsupported(absl::string_view what) {
  return Failure(reasons::kGgufTokenizer, absl::StrCat("a GGUF file with this tokenizer: ", what));
}

const Json& FieldOf(const Json& object, const char* key) {
  static const Json& null = *new Json();
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}
std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}
bool IsTrue(const Json& value) { return value.is_boolean() && value.get<bool>(); }

bool IsByteToken(absl::string_view text) {
  return text.size() == 6 && absl::StartsWith(text, "<0x") && text[5] == '>' &&
         std::all_of(text.begin() + 3, text.begin() + 5,
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); });
}

// Tokens by id, as they go into the file.
class TokenTable {
 public:
  explicit TokenTable(int64_t size) : tokens_(static_cast<size_t>(size)) {}

  absl::Status Set(int64_t id, std::string text, float score, int32_t type) {
    if (!Holds(id)) {
      return Invalid(absl::StrCat("the tokenizer has the id ", id, ", the model ", tokens_.size(),
                                  " rows of embeddings"));
    }
    tokens_[static_cast<size_t>(id)] = {std::move(text), score, type};
    return absl::OkStatus();
  }
  bool Holds(int64_t id) const { return id >= 0 && id < static_cast<int64_t>(tokens_.size()); }
  // Of an id that it holds.
  int32_t TypeOf(int64_t id) const { return tokens_[static_cast<size_t>(id)].type; }
  void Rename(int64_t id, std::string text) {
    tokens_[static_cast<size_t>(id)].text = std::move(text);
  }

  // Sets tokens and types, and scores if asked for.
  absl::Status Write(bool with_scores, GgufMetadata* metadata) {
    std::vector<std::string> texts;
    std::vector<float> scores;
    std::vector<int32_t> types;
    absl::flat_hash_set<absl::string_view> seen;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      Token& token = tokens_[id];
      if (token.type == kUnused && token.text.empty()) token.text = absl::StrCat("[PAD", id, "]");
      if (!seen.insert(token.text).second) {
        return Invalid(absl::StrCat("the token \"", token.text.substr(0, 64), "\" is there twice"));
      }
      texts.push_back(token.text);
      scores.push_back(token.score);
      types.push_back(token.type);
    }
    metadata->Set("tokenizer.ggml.tokens", std::move(texts));
    if (with_scores) metadata->Set("tokenizer.ggml.scores", std::move(scores));
    metadata->Set("tokenizer.ggml.token_type", std::move(types));
    return absl::OkStatus();
  }

 private:
  struct Token {
    std::string text;
    float score = kUnusedTokenScore;
    int32_t type = kUnused;
  };
  std::vector<Token> tokens_;
};

struct Sources {
  Json tokenizer, tokenizer_config, config;
  std::string steps;  // the text of tokenizer.json without its model
};

absl::StatusOr<Json> ParseObject(const std::string& text, absl::string_view name) {
  if (text.empty()) return Json::object();
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Invalid(absl::StrCat(name, " is no JSON object"));
  return json;
}

struct AddedToken {
  int64_t id;
  std::string text;
  bool special;
};

// Those of tokenizer.json, then of tokenizer_config.json's added_tokens_decoder.
std::vector<AddedToken> AddedTokens(const Sources& sources) {
  std::vector<AddedToken> tokens;
  const auto add = [&tokens](const Json& token, int64_t id) {
    if (!FieldOf(token, "content").is_string()) return;
    tokens.push_back({id, TextOf(FieldOf(token, "content")), IsTrue(FieldOf(token, "special"))});
  };
  for (const Json& token : FieldOf(sources.tokenizer, "added_tokens")) {
    const Json& id = FieldOf(token, "id");
    if (id.is_number_integer()) add(token, id.get<int64_t>());
  }
  const Json& decoder = FieldOf(sources.tokenizer_config, "added_tokens_decoder");
  if (decoder.is_object()) {
    for (const auto& [key, token] : decoder.items()) {
      int64_t id = 0;
      if (absl::SimpleAtoi(key, &id)) add(token, id);
    }
  }
  return tokens;
}

// They come over the model's own tokens, which may be renamed or made special; but what is unknown,
// or a byte, stays so.
absl::Status SetAddedTokens(const std::vector<AddedToken>& added, TokenTable* table) {
  for (const AddedToken& token : added) {
    // Of a model with more inputs than text, such as Gemma 3's images: it has no embedding here.
    if (!table->Holds(token.id)) continue;
    const int32_t before = table->TypeOf(token.id);
    if (before == kUnknown || before == kByte) {
      table->Rename(token.id, token.text);
      continue;
    }
    // llama.cpp looks for user-defined tokens in the text as it was.
    const std::string text =
        token.special ? token.text : absl::StrReplaceAll(token.text, {{"\xe2\x96\x81", " "}});
    LWQ_RETURN_IF_ERROR(
        table->Set(token.id, text, kAddedTokenScore, token.special ? kControl : kUserDefined));
  }
  return absl::OkStatus();
}

absl::Status SetFromSentencePiece(const std::string& serialized, const Sources& sources,
                                  int64_t vocab_size, GgufMetadata* metadata) {
  LWQ_ASSIGN_OR_RETURN(SentencePieces model, ReadSentencePieces(serialized));
  if (model.model_type != 2) return Unsupported("its SentencePiece model is no BPE");
  if (model.normalizes) return Unsupported("its SentencePiece model normalizes texts");
  if (model.remove_extra_whitespaces) {
    return Unsupported("its SentencePiece model takes out blanks, which llama.cpp does not");
  }
  TokenTable table(vocab_size);
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    SentencePieces::Piece& piece = model.pieces[id];
    LWQ_RETURN_IF_ERROR(
        table.Set(static_cast<int64_t>(id), std::move(piece.text), piece.score, piece.type));
  }
  LWQ_RETURN_IF_ERROR(SetAddedTokens(AddedTokens(sources), &table));
  metadata->Set("tokenizer.ggml.model", std::string("llama"));
  metadata->Set("tokenizer.ggml.pre", std::string("default"));
  LWQ_RETURN_IF_ERROR(table.Write(/*with_scores=*/true, metadata));
  metadata->Set("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix);
  return absl::OkStatus();
}

// Merges as pairs: "a b" in older files, ["a", "b"] in newer ones.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Merges(const Json& model) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Json& merge : FieldOf(model, "merges")) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = TextOf(merge);
    const size_t space = text.find(' ');
    if (space == std::string::npos) return Invalid("tokenizer.json has a merge that is no pair");
    merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return merges;
}

// A SentencePiece BPE without its tokenizer.model. llama.cpp merges what has the greatest score
// first, so a token's score falls with the rank of the first merge that makes it.
absl::Status SetFromByteFallback(const Sources& sources, int64_t vocab_size,
                                 GgufMetadata* metadata) {
  const Json& model = FieldOf(sources.tokenizer, "model");
  LWQ_ASSIGN_OR_RETURN(const auto merges, Merges(model));
  absl::flat_hash_map<std::string, float> scores;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    scores.try_emplace(absl::StrCat(merges[rank].first, merges[rank].second),
                       -static_cast<float>(rank));
  }
  const std::string unknown = TextOf(FieldOf(model, "unk_token"));
  TokenTable table(vocab_size);
  for (const auto& [text, id] : FieldOf(model, "vocab").items()) {
    if (!id.is_number_integer()) return Invalid("tokenizer.json has an id that is no number");
    const auto found = scores.find(text);
    const float score = found != scores.end() ? found->second : -static_cast<float>(merges.size());
    const int32_t type = text == unknown ? kUnknown : IsByteToken(text) ? kByte : kNormal;
    LWQ_RETURN_IF_ERROR(table.Set(id.get<int64_t>(), text, type == kNormal ? score : 0, type));
  }
  LWQ_RETURN_IF_ERROR(SetAddedTokens(AddedTokens(sources), &table));
  LWQ_ASSIGN_OR_RETURN(const bool prefix, AddsSpacePrefix(sources.steps));
  metadata->Set("tokenizer.ggml.model", std::string("llama"));
  metadata->Set("tokenizer.ggml.pre", std::string("default"));
  LWQ_RETURN_IF_ERROR(table.Write(/*with_scores=*/true, metadata));
  metadata->Set("tokenizer.ggml.add_space_prefix", prefix);
  return absl::OkStatus();
}

absl::Status SetFromByteLevel(const Sources& sources, int64_t vocab_size, GgufMetadata* metadata) {
  const Json& model = FieldOf(sources.tokenizer, "model");
  LWQ_ASSIGN_OR_RETURN(const std::string pre, PreTokenizerName(sources.steps));
  LWQ_ASSIGN_OR_RETURN(const auto merges, Merges(model));
  TokenTable table(vocab_size);
  for (const auto& [text, id] : FieldOf(model, "vocab").items()) {
    if (!id.is_number_integer()) return Invalid("tokenizer.json has an id that is no number");
    LWQ_RETURN_IF_ERROR(table.Set(id.get<int64_t>(), text, 0, kNormal));
  }
  LWQ_RETURN_IF_ERROR(SetAddedTokens(AddedTokens(sources), &table));
  std::vector<std::string> texts;
  for (const auto& [left, right] : merges) {
    // A blank inside a piece would part it; U+0120 is how the byte alphabet writes one.
    const auto whole = [](const std::string& piece) {
      return absl::StrReplaceAll(piece, {{" ", "\xc4\xa0"}});
    };
    texts.push_back(absl::StrCat(whole(left), " ", whole(right)));
  }
  metadata->Set("tokenizer.ggml.model", std::string("gpt2"));
  metadata->Set("tokenizer.ggml.pre", pre);
  LWQ_RETURN_IF_ERROR(table.Write(/*with_scores=*/false, metadata));
  metadata->Set("tokenizer.ggml.merges", std::move(texts));
  return absl::OkStatus();
}

// The id of a token by its text among those that were written; -1 when there is none.
int64_t IdOfToken(const GgufMetadata& metadata, const std::string& text) {
  const auto* tokens = metadata.Get<std::vector<std::string>>("tokenizer.ggml.tokens");
  const auto found = std::find(tokens->begin(), tokens->end(), text);
  return text.empty() || found == tokens->end() ? -1 : found - tokens->begin();
}

// What tokenizer_config.json names, else what config.json numbers.
void SetSpecialTokens(const Sources& sources, int64_t vocab_size, GgufMetadata* metadata) {
  const struct {
    const char* token;
    const char* id;
    const char* key;
  } kinds[] = {{"bos_token", "bos_token_id", "tokenizer.ggml.bos_token_id"},
               {"eos_token", "eos_token_id", "tokenizer.ggml.eos_token_id"},
               {"unk_token", "", "tokenizer.ggml.unknown_token_id"},
               {"pad_token", "pad_token_id", "tokenizer.ggml.padding_token_id"}};
  for (const auto& kind : kinds) {
    const Json& named = FieldOf(sources.tokenizer_config, kind.token);
    int64_t id =
        IdOfToken(*metadata, TextOf(named.is_object() ? FieldOf(named, "content") : named));
    const Json& number = FieldOf(sources.config, kind.id);
    const Json& first = number.is_array() && !number.empty() ? number[0] : number;
    if (id < 0 && first.is_number_integer()) id = first.get<int64_t>();
    if (id >= 0 && id < vocab_size) metadata->Set(kind.key, static_cast<uint32_t>(id));
  }
}

// What is put around a text: tokenizer_config.json says it, or the template of tokenizer.json; else
// the tokenizer does as it does.
void SetAddedAround(const GgufTokenizerFiles& files, const Sources& sources,
                    GgufMetadata* metadata) {
  const Json& bos = FieldOf(sources.tokenizer_config, "add_bos_token");
  const Json& eos = FieldOf(sources.tokenizer_config, "add_eos_token");
  const AroundText around = AddedAroundText(sources.steps);
  metadata->Set("tokenizer.ggml.add_bos_token",
                bos.is_boolean() ? bos.get<bool>() : around.before || files.adds_bos);
  const bool named = metadata->Find("tokenizer.ggml.bos_token_id") != nullptr;
  if (!named && files.bos_id >= 0) {
    metadata->Set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(files.bos_id));
  }
  metadata->Set("tokenizer.ggml.add_eos_token", eos.is_boolean() ? eos.get<bool>() : around.after);
}

// A key takes letters, digits and underscores.
std::string KeyPart(std::string name) {
  for (char& c : name) c = absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

// A file of its own, a text, or a list of named ones of which "default" is the model's.
void SetChatTemplates(const std::string& file, const Json& field, GgufMetadata* metadata) {
  std::string chosen = file.empty() ? TextOf(field) : file;
  std::vector<std::string> names;
  for (const Json& one : field.is_array() ? field : Json::array()) {
    const std::string name = TextOf(FieldOf(one, "name")), text = TextOf(FieldOf(one, "template"));
    if (name == "default") {
      if (file.empty()) chosen = text;
    } else if (!name.empty() && !text.empty()) {
      names.push_back(KeyPart(name));
      metadata->Set(absl::StrCat("tokenizer.chat_template.", names.back()), text);
    }
  }
  if (!names.empty()) metadata->Set("tokenizer.chat_templates", names);
  if (!chosen.empty()) metadata->Set("tokenizer.chat_template", chosen);
}

}  // namespace

absl::Status SetGgufTokenizer(const GgufTokenizerFiles& files, int64_t vocab_size,
                              GgufMetadata* metadata) {
  Sources sources;
  LWQ_ASSIGN_OR_RETURN(sources.tokenizer, ParseObject(files.tokenizer_json, "tokenizer.json"));
  LWQ_ASSIGN_OR_RETURN(sources.tokenizer_config,
                       ParseObject(files.tokenizer_config, "tokenizer_config.json"));
  LWQ_ASSIGN_OR_RETURN(sources.config, ParseObject(files.config, "config.json"));
  const Json& model = FieldOf(sources.tokenizer, "model");
  Json steps = Json::object();
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor"}) {
    steps[part] = FieldOf(sources.tokenizer, part);
  }
  steps["model"]["ignore_merges"] = FieldOf(model, "ignore_merges");
  sources.steps = steps.dump();
  if (!files.tokenizer_model.empty()) {
    LWQ_RETURN_IF_ERROR(SetFromSentencePiece(files.tokenizer_model, sources, vocab_size, metadata));
  } else if (files.tokenizer_json.empty()) {
    return Failure(reasons::kTokenizerMissing,
                   "a GGUF file needs tokenizer.json or tokenizer.model");
  } else if (FieldOf(model, "type") != "BPE" || !FieldOf(model, "vocab").is_object()) {
    return Unsupported("its model is no BPE");
  } else if (IsTrue(FieldOf(model, "byte_fallback"))) {
    LWQ_RETURN_IF_ERROR(SetFromByteFallback(sources, vocab_size, metadata));
  } else {
    LWQ_RETURN_IF_ERROR(SetFromByteLevel(sources, vocab_size, metadata));
  }
  SetSpecialTokens(sources, vocab_size, metadata);
  SetAddedAround(files, sources, metadata);
  SetChatTemplates(files.chat_template, FieldOf(sources.tokenizer_config, "chat_template"),
                   metadata);
  return absl::OkStatus();
}

}  // namespace lwq
