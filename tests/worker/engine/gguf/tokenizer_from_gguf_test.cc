// What tests/peers/gguf_source_test.py does not see: keys that are missing, damaged or unknown. The
// tokens of real files are compared with llama.cpp and transformers there.
#include "worker/engine/gguf/tokenizer_from_gguf.h"

#include <cmath>

#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

GgufMetadata ByteLevel() {
  GgufMetadata keys;
  keys.Set("tokenizer.ggml.model", std::string("gpt2"));
  keys.Set("tokenizer.ggml.pre", std::string("qwen2"));
  keys.Set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<|end|>", "[PAD4]"});
  keys.Set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 3, 5});
  keys.Set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  keys.Set("tokenizer.ggml.eos_token_id", uint32_t{3});
  return keys;
}

GgufMetadata SentencePiece() {
  GgufMetadata keys;
  keys.Set("tokenizer.ggml.model", std::string("llama"));
  keys.Set("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "\xe2\x96\x81", "a",
                                                             "\xe2\x96\x81"
                                                             "a",
                                                             "\xe2\x96\x81\xe2\x96\x81"});
  keys.Set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 1, 1, 1, 4});
  keys.Set("tokenizer.ggml.scores", std::vector<float>{0, 0, -3, -2, -1, 0});
  keys.Set("tokenizer.ggml.bos_token_id", uint32_t{1});
  keys.Set("tokenizer.ggml.unknown_token_id", uint32_t{0});
  return keys;
}

Json Made(const GgufMetadata& keys) {
  const absl::StatusOr<std::string> text = GgufTokenizerJson(keys);
  EXPECT_OK(text);
  return text.ok() ? Json::parse(*text) : Json();
}

TEST(TokenizerFromGgufTest, ByteLevelHasItsPartsAndNoFill) {
  const Json json = Made(ByteLevel());
  EXPECT_EQ(json["model"]["vocab"], Json({{"a", 0}, {"b", 1}, {"ab", 2}, {"<|end|>", 3}}));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["a","b"]])"));
  EXPECT_EQ(json["normalizer"]["type"], "NFC");
  EXPECT_TRUE(json["post_processor"].is_null()) << "no key says that a token comes first";
  ASSERT_EQ(json["added_tokens"].size(), 1u);
  EXPECT_EQ(json["added_tokens"][0]["id"], 3);
  EXPECT_EQ(json["added_tokens"][0]["special"], true);
}

TEST(TokenizerFromGgufTest, TokensAroundATextAreThoseOfTheKeys) {
  GgufMetadata keys = SentencePiece();  // by default the first token comes first
  Json json = Made(keys);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(json["post_processor"]["special_tokens"]["<s>"]["ids"], Json::parse("[1]"));
  EXPECT_EQ(json["post_processor"]["pair"].size(), 4u);
  keys.Set("tokenizer.ggml.add_bos_token", false);
  EXPECT_TRUE(Made(keys)["post_processor"].is_null());
  keys.Set("tokenizer.ggml.add_eos_token", true);
  EXPECT_THAT(GgufTokenizerJson(keys), FailsWith("TOKENIZER_INVALID", HasSubstr("eos_token_id")));
}

// Without a mark in front of texts, tokens of users are found among the marks; with one, in the
// text as it was.
TEST(TokenizerFromGgufTest, TokensOfUsersHaveBlanksOrMarks) {
  GgufMetadata keys = SentencePiece();
  Json added = Made(keys)["added_tokens"];
  EXPECT_EQ(added.back()["content"], "  ");
  EXPECT_EQ(added.back()["normalized"], false);
  EXPECT_EQ(Made(keys)["model"]["vocab"]["  "], 5) << "an added token keeps its id only so";
  EXPECT_EQ(Made(keys)["model"]["merges"], Json::parse(R"([["\u2581","a"]])"));
  keys.Set("tokenizer.ggml.add_space_prefix", false);
  added = Made(keys)["added_tokens"];
  EXPECT_EQ(added.back()["content"], "\xe2\x96\x81\xe2\x96\x81");
  EXPECT_EQ(added.back()["normalized"], true);
  EXPECT_EQ(Made(keys)["model"]["merges"].size(), 2u);
}

TEST(TokenizerFromGgufTest, WhatCannotBeMadeIsRefused) {
  const auto refused = [](GgufMetadata keys, const char* key, GgufValue value, const char* reason,
                          const char* what) {
    keys.Set(key, std::move(value));
    EXPECT_THAT(GgufTokenizerJson(keys), FailsWith(reason, HasSubstr(what))) << key;
  };
  EXPECT_THAT(GgufTokenizerJson(GgufMetadata()),
              FailsWith("TOKENIZER_MISSING", HasSubstr("no keys")));
  refused(ByteLevel(), "tokenizer.ggml.model", std::string("bert"), "GGUF_TOKENIZER", "bert");
  refused(ByteLevel(), "tokenizer.ggml.pre", std::string("default"), "GGUF_TOKENIZER", "llama-bpe");
  refused(ByteLevel(), "tokenizer.ggml.pre", uint32_t{1}, "GGUF_METADATA", "pre");
  refused(ByteLevel(), "tokenizer.ggml.merges", std::vector<std::string>{"ab"}, "TOKENIZER_INVALID",
          "no pair");
  refused(ByteLevel(), "tokenizer.ggml.merges", std::string("a b"), "GGUF_METADATA", "merges");
  refused(ByteLevel(), "tokenizer.ggml.token_type", std::vector<int32_t>{1}, "GGUF_METADATA",
          "another number");
  refused(ByteLevel(), "tokenizer.ggml.tokens",
          std::vector<std::string>{"a", "b", "a", "<|end|>", "x"}, "TOKENIZER_INVALID", "twice");
  refused(ByteLevel(), "tokenizer.ggml.tokens",
          std::vector<std::string>{"a", "b", "\xff", "<|end|>", "x"}, "TOKENIZER_INVALID", "UTF-8");
  refused(SentencePiece(), "tokenizer.ggml.scores", std::vector<float>{0, 0, NAN, 0, 0, 0},
          "TOKENIZER_INVALID", "NaN");
  // By default it comes first, so there has to be one.
  refused(SentencePiece(), "tokenizer.ggml.bos_token_id", uint32_t{6}, "TOKENIZER_INVALID",
          "bos_token_id");
}

// Files are about that have it.
TEST(TokenizerFromGgufTest, AnIdPastTheVocabularyIsNone) {
  GgufMetadata keys = ByteLevel();
  for (const uint32_t id : {uint32_t{5}, uint32_t{0xffffffff}}) {
    keys.Set("tokenizer.ggml.padding_token_id", id);
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string config, GgufTokenizerConfigJson(keys));
    EXPECT_FALSE(Json::parse(config).contains("pad_token")) << id;
  }
  keys.Set("tokenizer.ggml.padding_token_id", uint32_t{1});
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string config, GgufTokenizerConfigJson(keys));
  EXPECT_EQ(Json::parse(config)["pad_token"], "b");
}

// What a small file could make a worker spend its memory on.
TEST(TokenizerFromGgufTest, WhatGrowsBeyondMeasureIsRefused) {
  GgufMetadata keys = SentencePiece();
  std::vector<std::string> tokens = {"<unk>", "<s>", "\xe2\x96\x81", "a", std::string(1025, 'b'),
                                     "c"};
  keys.Set("tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(GgufTokenizerJson(keys), FailsWith("TOKENIZER_INVALID", HasSubstr("1025 bytes")));

  // "a", "aa" and so on up to 1,000, with every letter: each can be cut anywhere.
  tokens.clear();
  for (char letter = 'a'; letter <= 'e'; ++letter) {
    for (size_t length = 1; length <= 1000; ++length) tokens.emplace_back(length, letter);
  }
  keys.Set("tokenizer.ggml.token_type", std::vector<int32_t>(tokens.size(), 1));
  keys.Set("tokenizer.ggml.scores", std::vector<float>(tokens.size(), 0));
  keys.Set("tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(GgufTokenizerJson(keys), FailsWith("TOKENIZER_INVALID", HasSubstr("2097152 ways")));

  keys = SentencePiece();
  keys.Set("tokenizer.chat_template.x", std::string("{{ x }}"));
  keys.Set("tokenizer.chat_templates", std::vector<std::string>{"x", "x"});
  EXPECT_THAT(GgufTokenizerConfigJson(keys), FailsWith("TOKENIZER_INVALID", HasSubstr("twice")));
  std::vector<std::string> names;
  for (int i = 0; i < 65; ++i) names.push_back(std::to_string(i));
  keys.Set("tokenizer.chat_templates", names);
  EXPECT_THAT(GgufTokenizerConfigJson(keys),
              FailsWith("TOKENIZER_INVALID", HasSubstr("65 chat templates")));
}

TEST(TokenizerFromGgufTest, TheConfigurationNamesTokensAndTemplates) {
  GgufMetadata keys = SentencePiece();
  keys.Set("tokenizer.chat_template", std::string("{{ one }}"));
  LWQ_ASSERT_OK_AND_ASSIGN(std::string text, GgufTokenizerConfigJson(keys));
  Json config = Json::parse(text);
  EXPECT_EQ(config["bos_token"], "<s>");
  EXPECT_EQ(config["unk_token"], "<unk>");
  EXPECT_FALSE(config.contains("eos_token"));
  EXPECT_EQ(config["chat_template"], "{{ one }}");
  keys.Set("tokenizer.chat_templates", std::vector<std::string>{"tool_use", "missing"});
  keys.Set("tokenizer.chat_template.tool_use", std::string("{{ two }}"));
  LWQ_ASSERT_OK_AND_ASSIGN(text, GgufTokenizerConfigJson(keys));
  EXPECT_EQ(Json::parse(text)["chat_template"],
            Json::parse(R"([{"name":"default","template":"{{ one }}"},)"
                        R"({"name":"tool_use","template":"{{ two }}"}])"));
}

}  // namespace
}  // namespace lwq
