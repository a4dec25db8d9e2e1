#include "worker/engine/gguf/pre_tokenizer.h"

#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Split(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
Json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}
std::string Tokenizer(const std::vector<Json>& steps, const Json& normalizer = nullptr,
                      bool ignore_merges = false) {
  Json tokenizer = {{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
                    {"model", {{"ignore_merges", ignore_merges}}}};
  tokenizer["normalizer"] = normalizer;
  return tokenizer.dump();
}

constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

TEST(PreTokenizerTest, KnownOnesAreRecognisedByTheirSteps) {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const struct {
    std::string tokenizer;
    const char* name;
  } cases[] = {{Tokenizer({Split(kLlama3), ByteLevel(false)}, nullptr, true), "llama-bpe"},
               {Tokenizer({Split(kLlama3), ByteLevel(false)}), "dbrx"},
               {Tokenizer({Split(kQwen2), ByteLevel(false)}, {{"type", "NFC"}}), "qwen2"},
               {Tokenizer({digits, ByteLevel(true)}), "smollm"},
               {Json{{"pre_tokenizer", ByteLevel(true)}}.dump(), "gpt-2"}};
  for (const auto& [tokenizer, name] : cases) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string found, PreTokenizerName(tokenizer));
    EXPECT_EQ(found, name);
  }
}

TEST(PreTokenizerTest, OthersAreRefusedNotGuessed) {
  Json removed = Split(kQwen2);
  removed["behavior"] = "Removed";
  Json prefixed = ByteLevel(true);
  prefixed["add_prefix_space"] = true;
  for (const std::string& tokenizer :
       {Tokenizer({Split("[a-z]+"), ByteLevel(false)}), Tokenizer({Split(kQwen2), ByteLevel(true)}),
        Tokenizer({removed, ByteLevel(false)}), Tokenizer({prefixed}), Tokenizer({}),
        Tokenizer({Split(kQwen2), ByteLevel(false)}, nullptr, true),
        std::string("{}")}) {
    EXPECT_THAT(PreTokenizerName(tokenizer),
                FailsWith("GGUF_TOKENIZER", HasSubstr("llama-bpe, dbrx, qwen2, tekken, smollm, gpt-2")))
        << tokenizer;
  }
  EXPECT_THAT(PreTokenizerName(Tokenizer({ByteLevel(true)}, {{"type", "Lowercase"}})),
              FailsWith("GGUF_TOKENIZER", HasSubstr("normalizer")));
}

TEST(PreTokenizerTest, SpacePrefixIsReadFromEitherForm) {
  const Json prepend = {{"type", "Prepend"}, {"prepend", "\xe2\x96\x81"}};
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\xe2\x96\x81"}};
  const auto normalizer = [](std::vector<Json> steps) {
    return Json{{"normalizer", {{"type", "Sequence"}, {"normalizers", steps}}}};
  };
  const Json metaspace = {{"type", "Metaspace"},
                          {"replacement", "\xe2\x96\x81"},
                          {"prepend_scheme", "first"},
                          {"split", false}};
  EXPECT_EQ(*AddsSpacePrefix(normalizer({prepend, replace}).dump()), true);
  EXPECT_EQ(*AddsSpacePrefix(Json{{"normalizer", replace}}.dump()), false);
  EXPECT_EQ(*AddsSpacePrefix(Json{{"pre_tokenizer", metaspace}}.dump()), true);
  Json never = metaspace;
  never["prepend_scheme"] = "never";
  EXPECT_EQ(*AddsSpacePrefix(Json{{"pre_tokenizer", never}}.dump()), false);
  EXPECT_THAT(AddsSpacePrefix(normalizer({prepend}).dump()),
              FailsWith("GGUF_TOKENIZER", HasSubstr("blanks")));
  EXPECT_THAT(AddsSpacePrefix(Json{{"normalizer", {{"type", "NFKC"}}}}.dump()),
              FailsWith("GGUF_TOKENIZER", HasSubstr("normalizer")));
}

TEST(PreTokenizerTest, TemplateSaysWhatIsPutAround) {
  const Json token = {{"SpecialToken", {{"id", "<s>"}}}};
  const Json text = {{"Sequence", {{"id", "A"}}}};
  const auto around = [](const Json& single) {
    const Json step = {{"type", "TemplateProcessing"}, {"single", single}};
    const Json sequence = {{"type", "Sequence"}, {"processors", {ByteLevel(true), step}}};
    return AddedAroundText(Json{{"post_processor", sequence}}.dump());
  };
  EXPECT_TRUE(around(Json::array({token, text})).before);
  EXPECT_FALSE(around(Json::array({token, text})).after);
  EXPECT_FALSE(around(Json::array({text, token})).before);
  EXPECT_TRUE(around(Json::array({text, token})).after);
  EXPECT_FALSE(AddedAroundText("{}").before);
}

}  // namespace
}  // namespace lwq
