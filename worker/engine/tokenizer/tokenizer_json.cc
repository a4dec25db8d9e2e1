// See tokenizer_json.h. The file's form: Hugging Face `tokenizers` 0.13 to 0.23.
#include "worker/engine/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/tokenizer/bpe_model.h"
#include "worker/engine/tokenizer/json_reading.h"
#include "worker/engine/tokenizer/unigram_model.h"

namespace lwq {
namespace {

// Where ByteLevel cuts unless it is told not to (GPT-2's expression).
constexpr char kByteLevelRegex[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr size_t kMaxAddedTokens = 100'000;
constexpr size_t kMaxAddedTokenBytes = 4096;

absl::Status UnsupportedPart(absl::string_view part, absl::string_view what) {
  return Failure(reasons::kTokenizerUnsupported,
                 absl::StrCat("tokenizer.json: ", part, " ", what, " is not supported"));
}

absl::Status InvalidFile(absl::string_view message) {
  return Failure(reasons::kTokenizerInvalid, absl::StrCat("tokenizer.json: ", message));
}

absl::StatusOr<std::string> TypeOf(const Json& part, absl::string_view where) {
  if (!part.is_object()) return InvalidFile(absl::StrCat(where, " is not an object"));
  return StringField(part, "type", "");
}

// Calls `read` on `part`, or on each member of the Sequences in it; `list_key` is where a Sequence
// of this kind keeps them.
template <typename Read>
absl::Status ForEachStep(const Json& part, const char* list_key, absl::string_view where,
                         const Read& read) {
  if (part.is_null()) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(const std::string type, TypeOf(part, where));
  if (type != "Sequence") return read(part, type);
  const Json& list = FieldOrNull(part, list_key);
  if (!list.is_array())
    return InvalidFile(absl::StrCat(where, ": \"", list_key, "\" is not a list"));
  for (const Json& member : list) {
    LWQ_RETURN_IF_ERROR(ForEachStep(member, list_key, where, read));
  }
  return absl::OkStatus();
}

absl::StatusOr<TextPattern> ReadPattern(const Json& part, absl::string_view where) {
  const Json& pattern = FieldOrNull(part, "pattern");
  if (pattern.is_object()) {
    const Json& literal = FieldOrNull(pattern, "String");
    if (literal.is_string()) return TextPattern::FromString(literal.get<std::string>());
    const Json& regex = FieldOrNull(pattern, "Regex");
    if (regex.is_string()) return TextPattern::FromRegex(regex.get<std::string>());
  }
  return InvalidFile(absl::StrCat(where, ": \"pattern\" must be {\"String\"} or {\"Regex\"}"));
}

absl::StatusOr<SplitBehavior> ReadBehavior(const Json& part) {
  LWQ_ASSIGN_OR_RETURN(const std::string name, StringField(part, "behavior", ""));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return UnsupportedPart("the behavior", absl::StrCat("\"", name, "\" of a pre-tokenizer"));
}

absl::Status ReadNormalizer(const Json& part, std::vector<NormalizerStep>* steps) {
  return ForEachStep(
      part, "normalizers", "the normalizer",
      [steps](const Json& step, const std::string& type) -> absl::Status {
        if (type == "NFC") {
          steps->push_back(NfcStep{});
        } else if (type == "Prepend") {
          LWQ_ASSIGN_OR_RETURN(std::string prefix, StringField(step, "prepend", ""));
          steps->push_back(PrependStep{std::move(prefix)});
        } else if (type == "Replace") {
          LWQ_ASSIGN_OR_RETURN(TextPattern pattern, ReadPattern(step, "the normalizer Replace"));
          LWQ_ASSIGN_OR_RETURN(std::string content, StringField(step, "content", ""));
          steps->push_back(ReplaceStep{std::move(pattern), std::move(content)});
        } else {
          return UnsupportedPart("the normalizer", absl::StrCat("\"", type, "\""));
        }
        return absl::OkStatus();
      });
}

absl::StatusOr<MetaspaceStep> ReadMetaspace(const Json& step) {
  MetaspaceStep out;
  LWQ_ASSIGN_OR_RETURN(out.replacement, StringField(step, "replacement", "\u2581"));
  if (out.replacement.empty()) return InvalidFile("Metaspace: \"replacement\" is empty");
  LWQ_ASSIGN_OR_RETURN(const bool add_prefix, BoolField(step, "add_prefix_space", true));
  LWQ_ASSIGN_OR_RETURN(const std::string scheme,
                       StringField(step, "prepend_scheme", add_prefix ? "always" : "never"));
  LWQ_ASSIGN_OR_RETURN(out.split, BoolField(step, "split", true));
  if (scheme == "always") {
    out.prepend = MetaspaceStep::Prepend::kAlways;
  } else if (scheme == "first") {
    out.prepend = MetaspaceStep::Prepend::kFirst;
  } else if (scheme == "never") {
    out.prepend = MetaspaceStep::Prepend::kNever;
  } else {
    return UnsupportedPart("the prepend_scheme", absl::StrCat("\"", scheme, "\" of Metaspace"));
  }
  return out;
}

absl::Status AddSplit(absl::string_view regex, SplitBehavior behavior, bool invert,
                      std::vector<PreTokenizerStep>* steps) {
  LWQ_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::FromRegex(regex));
  steps->push_back(SplitStep{std::move(pattern), behavior, invert});
  return absl::OkStatus();
}

absl::Status ReadPreTokenizerStep(const Json& step, const std::string& type,
                                  std::vector<PreTokenizerStep>* steps) {
  if (type == "ByteLevel") {
    ByteLevelStep out;
    LWQ_ASSIGN_OR_RETURN(out.add_prefix_space, BoolField(step, "add_prefix_space", true));
    LWQ_ASSIGN_OR_RETURN(const bool use_regex, BoolField(step, "use_regex", true));
    if (use_regex) {
      LWQ_ASSIGN_OR_RETURN(out.pattern, TextPattern::FromRegex(kByteLevelRegex));
    }
    steps->push_back(std::move(out));
    return absl::OkStatus();
  }
  if (type == "Split") {
    LWQ_ASSIGN_OR_RETURN(TextPattern pattern, ReadPattern(step, "the pre-tokenizer Split"));
    LWQ_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(step));
    LWQ_ASSIGN_OR_RETURN(const bool invert, BoolField(step, "invert", false));
    steps->push_back(SplitStep{std::move(pattern), behavior, invert});
    return absl::OkStatus();
  }
  if (type == "Digits") {
    LWQ_ASSIGN_OR_RETURN(const bool individual, BoolField(step, "individual_digits", false));
    return AddSplit("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                    false, steps);
  }
  if (type == "Metaspace") {
    LWQ_ASSIGN_OR_RETURN(MetaspaceStep out, ReadMetaspace(step));
    steps->push_back(std::move(out));
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    return AddSplit(absl::StrCat("[", kWordMembers, "]+|[^", kWordMembers, "\\s]+"),
                    SplitBehavior::kRemoved, true, steps);
  }
  if (type == "WhitespaceSplit") return AddSplit("\\s", SplitBehavior::kRemoved, false, steps);
  return UnsupportedPart("the pre-tokenizer", absl::StrCat("\"", type, "\""));
}

absl::Status ReadDecoderStep(const Json& step, const std::string& type,
                             std::vector<DecoderStep>* steps) {
  if (type == "ByteLevel") {
    steps->push_back(ByteLevelDecodeStep{});
  } else if (type == "ByteFallback") {
    steps->push_back(ByteFallbackStep{});
  } else if (type == "Fuse") {
    steps->push_back(FuseStep{});
  } else if (type == "Replace") {
    LWQ_ASSIGN_OR_RETURN(TextPattern pattern, ReadPattern(step, "the decoder Replace"));
    LWQ_ASSIGN_OR_RETURN(std::string content, StringField(step, "content", ""));
    steps->push_back(ReplaceStep{std::move(pattern), std::move(content)});
  } else if (type == "Strip") {
    StripStep out;
    LWQ_ASSIGN_OR_RETURN(out.content, StringField(step, "content", " "));
    LWQ_ASSIGN_OR_RETURN(const int64_t start, IntField(step, "start", 0));
    LWQ_ASSIGN_OR_RETURN(const int64_t stop, IntField(step, "stop", 0));
    if (out.content.empty() || start < 0 || stop < 0 || start > 1024 || stop > 1024) {
      return InvalidFile("the decoder Strip has an empty content or a count outside 0 to 1024");
    }
    out.start = static_cast<int>(start);
    out.stop = static_cast<int>(stop);
    steps->push_back(std::move(out));
  } else if (type == "Metaspace") {
    LWQ_ASSIGN_OR_RETURN(const MetaspaceStep metaspace, ReadMetaspace(step));
    steps->push_back(MetaspaceDecodeStep{metaspace.replacement,
                                         metaspace.prepend != MetaspaceStep::Prepend::kNever});
  } else {
    return UnsupportedPart("the decoder", absl::StrCat("\"", type, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<BpeModel::Vocabulary> ReadVocabulary(const Json& model) {
  const Json& vocab = FieldOrNull(model, "vocab");
  if (!vocab.is_object()) return InvalidFile("\"model\": \"vocab\" is not an object");
  BpeModel::Vocabulary vocabulary;
  vocabulary.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    const int64_t value = id.is_number_unsigned() ? id.get<int64_t>() : -1;
    if (value < 0 || value > INT32_MAX) {
      return InvalidFile(absl::StrCat("the id of the token \"", token.substr(0, 60),
                                      "\" is not an integer from 0 on: ", id.dump().substr(0, 40)));
    }
    vocabulary.emplace(token, static_cast<int32_t>(value));
  }
  return vocabulary;
}

// Merges are "a b" or ["a", "b"].
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMerges(const Json& model) {
  const Json& list = FieldOrNull(model, "merges");
  if (!list.is_array()) return InvalidFile("\"model\": \"merges\" is not a list");
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(list.size());
  for (const Json& merge : list) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t blank = text.find(' ');
    if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
      return InvalidFile(absl::StrCat("merge ", merges.size(), " is not a pair of tokens"));
    }
    merges.emplace_back(text.substr(0, blank), text.substr(blank + 1));
  }
  return merges;
}

absl::StatusOr<std::unique_ptr<WordModel>> ReadBpe(const Json& model) {
  const Json& dropout = FieldOrNull(model, "dropout");
  if (!dropout.is_null() && dropout != Json(0.0))
    return UnsupportedPart("the model's", "\"dropout\"");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    LWQ_ASSIGN_OR_RETURN(const std::string value, StringField(model, key, ""));
    if (!value.empty()) return UnsupportedPart("the model's", absl::StrCat("\"", key, "\""));
  }
  BpeOptions options;
  LWQ_ASSIGN_OR_RETURN(options.unk_token, StringField(model, "unk_token", ""));
  LWQ_ASSIGN_OR_RETURN(options.fuse_unk, BoolField(model, "fuse_unk", false));
  LWQ_ASSIGN_OR_RETURN(options.byte_fallback, BoolField(model, "byte_fallback", false));
  LWQ_ASSIGN_OR_RETURN(options.ignore_merges, BoolField(model, "ignore_merges", false));
  LWQ_ASSIGN_OR_RETURN(BpeModel::Vocabulary vocabulary, ReadVocabulary(model));
  LWQ_ASSIGN_OR_RETURN(const auto merges, ReadMerges(model));
  return BpeModel::Create(std::move(vocabulary), merges, std::move(options));
}

// The vocabulary is a list of [token, score].
absl::StatusOr<std::unique_ptr<WordModel>> ReadUnigram(const Json& model) {
  const Json& list = FieldOrNull(model, "vocab");
  if (!list.is_array()) return InvalidFile("\"model\": \"vocab\" of a Unigram model is not a list");
  std::vector<std::pair<std::string, double>> tokens;
  tokens.reserve(list.size());
  for (const Json& entry : list) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return InvalidFile(
          absl::StrCat("entry ", tokens.size(), " of \"vocab\" is no token and score"));
    }
    tokens.emplace_back(entry[0].get<std::string>(), entry[1].get<double>());
  }
  // Without one `tokenizers` fails at the first unknown character.
  LWQ_ASSIGN_OR_RETURN(const int64_t unk_id, IntField(model, "unk_id", -1));
  LWQ_ASSIGN_OR_RETURN(const bool byte_fallback, BoolField(model, "byte_fallback", false));
  return UnigramModel::Create(std::move(tokens), unk_id, byte_fallback);
}

absl::StatusOr<std::unique_ptr<WordModel>> ReadModel(const Json& model) {
  if (!model.is_object()) return InvalidFile("\"model\" is not an object");
  // Files of before 0.10 name no type; BPE alone has merges.
  LWQ_ASSIGN_OR_RETURN(const std::string type,
                       StringField(model, "type", model.contains("merges") ? "BPE" : ""));
  if (type == "BPE") return ReadBpe(model);
  if (type == "Unigram") return ReadUnigram(model);
  return UnsupportedPart("the model", absl::StrCat("\"", type, "\""));
}

absl::StatusOr<AddedToken> ReadAddedToken(const Json& json) {
  if (!json.is_object()) return InvalidFile("an added token is not an object");
  AddedToken token;
  LWQ_ASSIGN_OR_RETURN(const int64_t id, IntField(json, "id", -1));
  LWQ_ASSIGN_OR_RETURN(token.content, StringField(json, "content", ""));
  if (id < 0 || id > INT32_MAX || token.content.size() > kMaxAddedTokenBytes) {
    return InvalidFile(absl::StrCat("the added token \"", token.content.substr(0, 60),
                                    "\" has the id ", id, " and ", token.content.size(), " bytes"));
  }
  token.id = static_cast<int32_t>(id);
  LWQ_ASSIGN_OR_RETURN(token.special, BoolField(json, "special", false));
  LWQ_ASSIGN_OR_RETURN(token.single_word, BoolField(json, "single_word", false));
  LWQ_ASSIGN_OR_RETURN(token.lstrip, BoolField(json, "lstrip", false));
  LWQ_ASSIGN_OR_RETURN(token.rstrip, BoolField(json, "rstrip", false));
  LWQ_ASSIGN_OR_RETURN(token.normalized, BoolField(json, "normalized", !token.special));
  return token;
}

// Adds tokens in order of their ids. Hugging Face numbers them itself (the vocabulary's own id,
// else the next free one) and a file that says otherwise would mean different ids there and here.
absl::Status AddTokens(std::vector<AddedToken> tokens, TokenizerPipeline* pipeline) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  std::vector<AddedToken>& all = pipeline->added_tokens;
  int64_t next = pipeline->model->num_tokens();
  for (const AddedToken& token : all) next = std::max<int64_t>(next, int64_t{token.id} + 1);
  absl::flat_hash_map<std::string, int32_t> known;
  for (const AddedToken& token : all) known.emplace(token.content, token.id);
  for (AddedToken& token : tokens) {
    if (token.content.empty() || !known.emplace(token.content, token.id).second) continue;
    const int32_t of_model = pipeline->model->IdOf(token.content);
    const int64_t expected = of_model >= 0 ? of_model : next;
    if (token.id != expected) {
      return InvalidFile(absl::StrCat("the added token \"", token.content.substr(0, 60),
                                      "\" has the id ", token.id, ", expected ", expected));
    }
    next = std::max<int64_t>(next, int64_t{token.id} + 1);
    all.push_back(std::move(token));
  }
  if (all.size() > kMaxAddedTokens) {
    return InvalidFile(absl::StrCat("more than ", kMaxAddedTokens, " added tokens"));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const Json& json, const TokenizerConfig& config,
                             TokenizerPipeline* pipeline) {
  const Json& list = FieldOrNull(json, "added_tokens");
  std::vector<AddedToken> tokens;
  if (!list.is_null() && !list.is_array()) return InvalidFile("\"added_tokens\" is not a list");
  for (const Json& item : list) {
    LWQ_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(item));
    tokens.push_back(std::move(token));
  }
  LWQ_RETURN_IF_ERROR(AddTokens(std::move(tokens), pipeline));
  // transformers adds those of the other file anew, so what it says of how they match holds.
  for (const AddedToken& said : config.added_tokens) {
    for (AddedToken& token : pipeline->added_tokens) {
      if (token.content != said.content) continue;
      token.single_word = said.single_word;
      token.lstrip = said.lstrip;
      token.rstrip = said.rstrip;
      token.normalized = said.normalized;
    }
  }
  return AddTokens(config.added_tokens, pipeline);
}

// The ids that a TemplateProcessing puts before and after the text.
absl::Status ReadTemplate(const Json& step, int64_t id_end, TokenizerPipeline* pipeline) {
  const Json& single = FieldOrNull(step, "single");
  const Json& specials = FieldOrNull(step, "special_tokens");
  if (!single.is_array()) return InvalidFile("TemplateProcessing: \"single\" is not a list");
  bool after_text = false;
  std::vector<int32_t> prefix, suffix;
  for (const Json& item : single) {
    if (!item.is_object()) return InvalidFile("TemplateProcessing: \"single\" has a non-object");
    if (item.contains("Sequence")) {
      if (after_text) return UnsupportedPart("a template", "with the text in it twice");
      after_text = true;
      continue;
    }
    const Json& special = FieldOrNull(item, "SpecialToken");
    LWQ_ASSIGN_OR_RETURN(const std::string name, special.is_object()
                                                     ? StringField(special, "id", "")
                                                     : absl::StatusOr<std::string>(""));
    const Json& entry = specials.is_object() ? FieldOrNull(specials, name.c_str()) : specials;
    const Json& ids = entry.is_object() ? FieldOrNull(entry, "ids") : entry;
    if (name.empty() || !ids.is_array()) {
      return InvalidFile("TemplateProcessing: a special token has no \"ids\"");
    }
    for (const Json& id : ids) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(id_end)) {
        return InvalidFile(absl::StrCat("TemplateProcessing: the id ", id.dump().substr(0, 40),
                                        " is outside the vocabulary of ", id_end));
      }
      (after_text ? suffix : prefix).push_back(id.get<int32_t>());
    }
  }
  if (!after_text) return UnsupportedPart("a template", "without the text in it");
  // Templates in a Sequence are put around one another.
  pipeline->prefix.insert(pipeline->prefix.begin(), prefix.begin(), prefix.end());
  pipeline->suffix.insert(pipeline->suffix.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerPipeline> ReadTokenizerJson(absl::string_view text,
                                                    const TokenizerConfig& config) {
  LWQ_ASSIGN_OR_RETURN(const Json json, ParseTokenizerJson(text, "tokenizer.json"));
  if (!json.is_object()) return InvalidFile("not a JSON object");
  TokenizerPipeline pipeline;
  LWQ_ASSIGN_OR_RETURN(pipeline.model, ReadModel(FieldOrNull(json, "model")));
  LWQ_RETURN_IF_ERROR(ReadAddedTokens(json, config, &pipeline));
  LWQ_RETURN_IF_ERROR(ReadNormalizer(FieldOrNull(json, "normalizer"), &pipeline.normalizer));
  LWQ_RETURN_IF_ERROR(
      ForEachStep(FieldOrNull(json, "pre_tokenizer"), "pretokenizers", "the pre-tokenizer",
                  [&](const Json& step, const std::string& type) {
                    return ReadPreTokenizerStep(step, type, &pipeline.pre_tokenizer);
                  }));
  int64_t id_end = pipeline.model->id_end();
  for (const AddedToken& token : pipeline.added_tokens) {
    id_end = std::max<int64_t>(id_end, int64_t{token.id} + 1);
  }
  LWQ_RETURN_IF_ERROR(
      ForEachStep(FieldOrNull(json, "post_processor"), "processors", "the post-processor",
                  [&](const Json& step, const std::string& type) -> absl::Status {
                    if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
                    if (type == "TemplateProcessing") return ReadTemplate(step, id_end, &pipeline);
                    return UnsupportedPart("the post-processor", absl::StrCat("\"", type, "\""));
                  }));
  pipeline.has_decoder = !FieldOrNull(json, "decoder").is_null();
  LWQ_RETURN_IF_ERROR(ForEachStep(FieldOrNull(json, "decoder"), "decoders", "the decoder",
                                  [&](const Json& step, const std::string& type) {
                                    return ReadDecoderStep(step, type, &pipeline.decoder);
                                  }));
  return pipeline;
}

}  // namespace lwq
