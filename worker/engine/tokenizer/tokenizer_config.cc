// See tokenizer_config.h. Field names and defaults: transformers' PreTrainedTokenizerBase and
// LlamaTokenizer.
#include "worker/engine/tokenizer/tokenizer_config.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/tokenizer/json_reading.h"

namespace lwq {
namespace {

constexpr int64_t kMaxConfigBytes = 8 << 20;

// A token is a string or an object with "content".
absl::StatusOr<std::string> TokenField(const Json& config, const char* key) {
  const Json& value = FieldOrNull(config, key);
  if (value.is_object()) return StringField(value, "content", "");
  return StringField(config, key, "");
}

absl::StatusOr<Json> ReadObject(const std::string& directory, const std::string& name) {
  absl::StatusOr<std::string> text = ReadModelFile(directory, name, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return Json::object();
  LWQ_RETURN_IF_ERROR(text.status());
  LWQ_ASSIGN_OR_RETURN(Json json, ParseTokenizerJson(*text, name));
  if (!json.is_object()) {
    return Failure(reasons::kTokenizerInvalid, absl::StrCat(name, " is not a JSON object"));
  }
  return json;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const Json& decoder) {
  std::vector<AddedToken> tokens;
  if (decoder.is_null()) return tokens;
  if (!decoder.is_object()) {
    return Failure(reasons::kTokenizerInvalid, "\"added_tokens_decoder\" must be an object");
  }
  for (const auto& [key, value] : decoder.items()) {
    AddedToken token;
    if (!absl::SimpleAtoi(key, &token.id) || token.id < 0 || !value.is_object()) {
      return Failure(reasons::kTokenizerInvalid,
                     absl::StrCat("\"added_tokens_decoder\": \"", key.substr(0, 40),
                                  "\" is not a token id with its object"));
    }
    LWQ_ASSIGN_OR_RETURN(token.content, StringField(value, "content", ""));
    LWQ_ASSIGN_OR_RETURN(token.special, BoolField(value, "special", false));
    LWQ_ASSIGN_OR_RETURN(token.single_word, BoolField(value, "single_word", false));
    LWQ_ASSIGN_OR_RETURN(token.lstrip, BoolField(value, "lstrip", false));
    LWQ_ASSIGN_OR_RETURN(token.rstrip, BoolField(value, "rstrip", false));
    LWQ_ASSIGN_OR_RETURN(token.normalized, BoolField(value, "normalized", !token.special));
    tokens.push_back(std::move(token));
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return tokens;
}

}  // namespace

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& model_directory) {
  LWQ_ASSIGN_OR_RETURN(const Json json, ReadObject(model_directory, "tokenizer_config.json"));
  LWQ_ASSIGN_OR_RETURN(const Json map, ReadObject(model_directory, "special_tokens_map.json"));
  TokenizerConfig config;
  const auto token = [&](const char* key) -> absl::StatusOr<std::string> {
    LWQ_ASSIGN_OR_RETURN(std::string of_config, TokenField(json, key));
    return of_config.empty() ? TokenField(map, key) : of_config;
  };
  LWQ_ASSIGN_OR_ANNOTATE(config.bos_token, token("bos_token"), "tokenizer_config.json");
  LWQ_ASSIGN_OR_ANNOTATE(config.eos_token, token("eos_token"), "tokenizer_config.json");
  LWQ_ASSIGN_OR_ANNOTATE(config.unk_token, token("unk_token"), "tokenizer_config.json");
  LWQ_ASSIGN_OR_ANNOTATE(config.tokenizer_class, StringField(json, "tokenizer_class", ""),
                         "tokenizer_config.json");
  LWQ_ASSIGN_OR_ANNOTATE(config.legacy, BoolField(json, "legacy", true), "tokenizer_config.json");
  if (!FieldOrNull(json, "add_bos_token").is_null()) {
    LWQ_ASSIGN_OR_ANNOTATE(config.add_bos, BoolField(json, "add_bos_token", true),
                           "tokenizer_config.json");
  }
  if (!FieldOrNull(json, "add_eos_token").is_null()) {
    LWQ_ASSIGN_OR_ANNOTATE(config.add_eos, BoolField(json, "add_eos_token", false),
                           "tokenizer_config.json");
  }
  LWQ_ASSIGN_OR_ANNOTATE(config.added_tokens,
                         ReadAddedTokens(FieldOrNull(json, "added_tokens_decoder")),
                         "tokenizer_config.json");
  return config;
}

}  // namespace lwq
