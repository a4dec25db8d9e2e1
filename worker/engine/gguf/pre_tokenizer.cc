#include "worker/engine/gguf/pre_tokenizer.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "nlohmann/json.hpp"

namespace lwq {
namespace {

using Json = nlohmann::json;

struct KnownPreTokenizer {
  const char* name;
  std::vector<std::string> steps;  // as StepText writes them
  // Whether a word that is a token stays whole, whatever merges there are.
  bool ignore_merges = false;
  bool composes = false;  // its models' NFC, which llama.cpp leaves out
};

// Patterns are split points ("isolated" matches) unless said otherwise.
const std::vector<KnownPreTokenizer>& Known() {
  static const auto& known = *new std::vector<KnownPreTokenizer>{
      {"llama-bpe",
       {R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        "bytes"},
       /*ignore_merges=*/true},
      {"dbrx",
       {R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        "bytes"}},
      {"qwen2",
       {R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        "bytes"},
       /*ignore_merges=*/false,
       /*composes=*/true},
      {"tekken",
       {R"(split [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        "bytes"},
       /*ignore_merges=*/true},
      {"smollm", {"single digits", "words and bytes"}},
      {"gpt-2", {"words and bytes"}}};
  return known;
}

Json Parse(absl::string_view text) { return Json::parse(text, nullptr, false); }

const Json& FieldOf(const Json& object, const char* key) {
  static const Json& null = *new Json();
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}
bool Is(const Json& object, const char* key, bool fallback) {
  const Json& value = FieldOf(object, key);
  return value.is_boolean() ? value.get<bool>() : fallback;
}

// A step, or the steps of a "Sequence", whose list is `list`.
std::vector<Json> StepsOf(const Json& step, const char* list) {
  if (!step.is_object()) return {};
  if (FieldOf(step, "type") != "Sequence") return {step};
  const Json& steps = FieldOf(step, list);
  return steps.is_array() ? std::vector<Json>(steps.begin(), steps.end()) : std::vector<Json>();
}

// One pre-tokenizing step in few words; "?" for any that is not known here.
std::string StepText(const Json& step) {
  const Json& type = FieldOf(step, "type");
  if (type == "Split" && FieldOf(step, "behavior") == "Isolated" && !Is(step, "invert", false)) {
    const Json& regex = FieldOf(FieldOf(step, "pattern"), "Regex");
    return regex.is_string() ? absl::StrCat("split ", regex.get<std::string>()) : "?";
  }
  if (type == "Digits" && Is(step, "individual_digits", false)) return "single digits";
  if (type == "ByteLevel" && !Is(step, "add_prefix_space", true)) {
    return Is(step, "use_regex", true) ? "words and bytes" : "bytes";
  }
  return "?";
}

// Names that stand for the same steps.
struct OtherName {
  absl::string_view name, same_as;
};
constexpr OtherName kOtherNames[] = {
    {"llama3", "llama-bpe"},      {"llama-v3", "llama-bpe"}, {"falcon3", "llama-bpe"},
    {"smaug-bpe", "dbrx"},        {"gpt2", "gpt-2"},         {"phi-2", "gpt-2"},
    {"deepseek-r1-qwen", "qwen2"}};

// The step that StepText makes `text` of.
Json StepOf(absl::string_view text) {
  if (absl::ConsumePrefix(&text, "split ")) {
    return {{"type", "Split"},
            {"pattern", {{"Regex", std::string(text)}}},
            {"behavior", "Isolated"},
            {"invert", false}};
  }
  if (text == "single digits") return {{"type", "Digits"}, {"individual_digits", true}};
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", text == "words and bytes"}};
}

absl::Status Unsupported(absl::string_view what) {
  return Failure(reasons::kGgufTokenizer, absl::StrCat("a GGUF file with this tokenizer: ", what));
}

}  // namespace

absl::StatusOr<std::string> PreTokenizerName(absl::string_view tokenizer_json) {
  const Json tokenizer = Parse(tokenizer_json);
  const Json& normalizer = FieldOf(tokenizer, "normalizer");
  // llama.cpp leaves out NFC, which only changes text that is not composed already.
  if (!normalizer.is_null() && FieldOf(normalizer, "type") != "NFC") {
    return Unsupported("its normalizer is not one that llama.cpp has");
  }
  std::vector<std::string> steps;
  for (const Json& step : StepsOf(FieldOf(tokenizer, "pre_tokenizer"), "pretokenizers")) {
    steps.push_back(StepText(step));
  }
  const bool ignore_merges = Is(FieldOf(tokenizer, "model"), "ignore_merges", false);
  std::string names;
  for (const KnownPreTokenizer& known : Known()) {
    if (known.steps == steps && known.ignore_merges == ignore_merges) {
      return std::string(known.name);
    }
    absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
  }
  return Unsupported(absl::StrCat("its pre-tokenizer, with ignore_merges ",
                                  ignore_merges ? "on" : "off", ", is none of ", names));
}

absl::StatusOr<StepsBeforeModel> StepsOfPreTokenizer(absl::string_view name) {
  for (const OtherName& other : kOtherNames) {
    if (other.name == name) name = other.same_as;
  }
  std::string names;
  for (const KnownPreTokenizer& known : Known()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
    if (known.name != name) continue;
    StepsBeforeModel steps;
    Json list = Json::array();
    for (const std::string& step : known.steps) list.push_back(StepOf(step));
    const Json all = {{"type", "Sequence"}, {"pretokenizers", list}};
    steps.pre_tokenizer = (list.size() == 1 ? list[0] : all).dump();
    steps.normalizer = known.composes ? R"({"type":"NFC"})" : "null";
    steps.ignore_merges = known.ignore_merges;
    steps.adds_bos = known.ignore_merges;  // of llama-bpe and tekken
    return steps;
  }
  return Failure(
      reasons::kGgufTokenizer,
      absl::StrCat("the GGUF file's pre-tokenizer \"", absl::CHexEscape(name.substr(0, 64)),
                   "\" is none of ", names, "; give the model's safetensors files"));
}

absl::StatusOr<bool> AddsSpacePrefix(absl::string_view tokenizer_json) {
  const Json tokenizer = Parse(tokenizer_json);
  const char* mark = "\xe2\x96\x81";
  bool prefix = false;
  bool blanks = false;
  for (const Json& step : StepsOf(FieldOf(tokenizer, "normalizer"), "normalizers")) {
    const Json& type = FieldOf(step, "type");
    if (type == "Prepend" && FieldOf(step, "prepend") == mark) {
      prefix = true;
    } else if (type == "Replace" && FieldOf(FieldOf(step, "pattern"), "String") == " " &&
               FieldOf(step, "content") == mark) {
      blanks = true;
    } else {
      return Unsupported("its normalizer is not SentencePiece's");
    }
  }
  for (const Json& step : StepsOf(FieldOf(tokenizer, "pre_tokenizer"), "pretokenizers")) {
    // Gemma splits at blanks that the normalizer has already replaced.
    const bool idle = blanks && FieldOf(step, "type") == "Split" &&
                      FieldOf(FieldOf(step, "pattern"), "String") == " ";
    if (idle) continue;
    if (FieldOf(step, "type") != "Metaspace" || Is(step, "split", true)) {
      return Unsupported("its pre-tokenizer is not SentencePiece's");
    }
    blanks = true;
    prefix = FieldOf(step, "prepend_scheme") != "never";
  }
  if (!blanks) return Unsupported("it leaves blanks as they are");
  return prefix;
}

AroundText AddedAroundText(absl::string_view tokenizer_json) {
  const Json tokenizer = Parse(tokenizer_json);
  AroundText around;
  for (const Json& step : StepsOf(FieldOf(tokenizer, "post_processor"), "processors")) {
    const Json& single = FieldOf(step, "single");
    if (FieldOf(step, "type") != "TemplateProcessing" || !single.is_array() || single.empty()) {
      continue;
    }
    around.before = !FieldOf(single.front(), "SpecialToken").is_null();
    around.after = !FieldOf(single.back(), "SpecialToken").is_null();
  }
  return around;
}

}  // namespace lwq
