#include "worker/engine/gguf/gguf_tokenizer.h"

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string SampleFile(const char* name) {
  return ReadFile(testing::SampleModelPath() + "/" + name, 1 << 22).value_or("");
}

GgufTokenizerFiles SampleFiles() {
  return {SampleFile("tokenizer.model"), SampleFile("tokenizer.json"),
          SampleFile("tokenizer_config.json"), SampleFile("config.json"), ""};
}

template <typename T>
T KeyOf(const GgufMetadata& metadata, const char* key) {
  const T* value = metadata.Get<T>(key);
  EXPECT_NE(value, nullptr) << key;
  return value == nullptr ? T() : *value;
}

TEST(GgufTokenizerTest, SampleIsLlamasWithItsScores) {
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(SampleFiles(), 4098, &metadata));
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.ggml.model"), "llama");
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.ggml.pre"), "default");
  const auto tokens = KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  const auto scores = KeyOf<std::vector<float>>(metadata, "tokenizer.ggml.scores");
  const auto types = KeyOf<std::vector<int32_t>>(metadata, "tokenizer.ggml.token_type");
  ASSERT_EQ(tokens.size(), 4098u);
  ASSERT_EQ(scores.size(), 4098u);
  ASSERT_EQ(types.size(), 4098u);
  EXPECT_EQ(tokens[263], "\xe2\x96\x81the");
  EXPECT_EQ(scores[263], -4.0f);
  EXPECT_THAT(std::vector<int32_t>(types.begin(), types.begin() + 4), ElementsAre(2, 3, 3, 6));
  EXPECT_EQ(tokens[4097], "[PAD4097]");
  EXPECT_EQ(types[4097], 5);
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.bos_token_id"), 1u);
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.eos_token_id"), 2u);
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.unknown_token_id"), 0u);
  EXPECT_EQ(metadata.Find("tokenizer.ggml.padding_token_id"), nullptr);
  EXPECT_TRUE(KeyOf<bool>(metadata, "tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(KeyOf<bool>(metadata, "tokenizer.ggml.add_eos_token"));
  EXPECT_TRUE(KeyOf<bool>(metadata, "tokenizer.ggml.add_space_prefix"));
  EXPECT_EQ(metadata.Find("tokenizer.chat_template"), nullptr);
}

// Without tokenizer.model: the same tokens and types, and scores in the same order where two tokens
// can compete, those that merges make.
TEST(GgufTokenizerTest, ScoresFollowFromMerges) {
  GgufMetadata with, without;
  ASSERT_OK(SetGgufTokenizer(SampleFiles(), 4096, &with));
  GgufTokenizerFiles files = SampleFiles();
  files.tokenizer_model.clear();
  ASSERT_OK(SetGgufTokenizer(files, 4096, &without));
  EXPECT_EQ(*without.Find("tokenizer.ggml.tokens"), *with.Find("tokenizer.ggml.tokens"));
  EXPECT_EQ(*without.Find("tokenizer.ggml.token_type"), *with.Find("tokenizer.ggml.token_type"));
  EXPECT_EQ(*without.Find("tokenizer.ggml.add_space_prefix"),
            *with.Find("tokenizer.ggml.add_space_prefix"));
  const auto expected = KeyOf<std::vector<float>>(with, "tokenizer.ggml.scores");
  const auto found = KeyOf<std::vector<float>>(without, "tokenizer.ggml.scores");
  const float least = *std::min_element(found.begin(), found.end());
  int compared = 0;
  for (size_t id = 260; id < found.size() && found[id] > least; ++id, ++compared) {
    EXPECT_LT(found[id], found[id - 1]) << id;
    EXPECT_LT(expected[id], expected[id - 1]) << id;
  }
  EXPECT_GT(compared, 3000);
}

// Pieces of tokenizer.model are what tokenizer.json makes of them; unknown ones and bytes stay that.
TEST(GgufTokenizerTest, AddedTokensComeOverThePiecesOfTokenizerModel) {
  GgufTokenizerFiles files = SampleFiles();
  Json tokenizer = Json::parse(files.tokenizer_json);
  tokenizer["added_tokens"].push_back({{"id", 300}, {"content", "<|user|>"}, {"special", true}});
  tokenizer["added_tokens"].push_back(
      {{"id", 301}, {"content", "\xe2\x96\x81tool"}, {"special", false}});
  tokenizer["added_tokens"].push_back({{"id", 5}, {"content", "<0x02>"}, {"special", false}});
  tokenizer["added_tokens"][0]["content"] = "<unknown>";
  files.tokenizer_json = tokenizer.dump();
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(files, 4096, &metadata));
  const auto tokens = KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  const auto types = KeyOf<std::vector<int32_t>>(metadata, "tokenizer.ggml.token_type");
  EXPECT_EQ(tokens[300], "<|user|>");
  EXPECT_EQ(types[300], 3);
  EXPECT_EQ(tokens[301], " tool");
  EXPECT_EQ(types[301], 4);
  EXPECT_EQ(tokens[0], "<unknown>");
  EXPECT_EQ(types[0], 2);
  EXPECT_EQ(types[5], 6);
}

// A SentencePiece model of three pieces: BPE, a prefix; `more` goes into its normalizer.
std::string SmallSentencePiece(const std::string& more) {
  std::string model;
  for (const char* text : {"<unk>", "<s>", "a"}) {
    const std::string piece =
        std::string("\x0a") + static_cast<char>(std::strlen(text)) + text;
    model += std::string("\x0a") + static_cast<char>(piece.size()) + piece;
  }
  const std::string normalizer = std::string("\x18\x01", 2) + more;
  return model + "\x12\x02\x18\x02\x1a" + static_cast<char>(normalizer.size()) + normalizer;
}

TEST(GgufTokenizerTest, WhatTheTokenizerAddsIsSaidWhereNoFileSaysIt) {
  GgufTokenizerFiles files;
  files.tokenizer_model = SmallSentencePiece(std::string("\x20\x00", 2));
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(files, 3, &metadata));
  EXPECT_FALSE(KeyOf<bool>(metadata, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(metadata.Find("tokenizer.ggml.bos_token_id"), nullptr);
  files.adds_bos = true;
  files.bos_id = 1;
  ASSERT_OK(SetGgufTokenizer(files, 3, &metadata));
  EXPECT_TRUE(KeyOf<bool>(metadata, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.bos_token_id"), 1u);
  files.tokenizer_config = R"({"add_bos_token": false, "bos_token": "a"})";
  ASSERT_OK(SetGgufTokenizer(files, 3, &metadata));
  EXPECT_FALSE(KeyOf<bool>(metadata, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.bos_token_id"), 2u);
}

TEST(GgufTokenizerTest, ASentencePieceModelThatChangesTextsIsRefused) {
  GgufTokenizerFiles files;
  GgufMetadata metadata;
  files.tokenizer_model = SmallSentencePiece("");  // takes out blanks unless it says no
  EXPECT_THAT(SetGgufTokenizer(files, 3, &metadata),
              FailsWith("GGUF_TOKENIZER", HasSubstr("blanks")));
  files.tokenizer_model = SmallSentencePiece(std::string("\x20\x00\x12\x02xy", 6));
  EXPECT_THAT(SetGgufTokenizer(files, 3, &metadata),
              FailsWith("GGUF_TOKENIZER", HasSubstr("normalizes")));
}

Json ByteLevelBpe() {
  return {
      {"added_tokens",
       {{{"id", 4}, {"content", "<|end|>"}, {"special", true}},
        {{"id", 5}, {"content", "\xe2\x96\x81tool"}, {"special", false}}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"\xc4\xa0", 3}}},
        {"merges", Json::array({Json::array({"a", "b"})})}}}};
}

TEST(GgufTokenizerTest, ByteLevelBpeIsGpt2s) {
  GgufTokenizerFiles files;
  files.tokenizer_json = ByteLevelBpe().dump();
  files.tokenizer_config = R"({"eos_token": {"content": "<|end|>"}, "chat_template": "{{ x }}"})";
  files.config = R"({"bos_token_id": [0, 1]})";
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(files, 7, &metadata));
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.ggml.pre"), "gpt-2");
  EXPECT_THAT(KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "ab", "\xc4\xa0", "<|end|>", " tool", "[PAD6]"));
  EXPECT_THAT(KeyOf<std::vector<int32_t>>(metadata, "tokenizer.ggml.token_type"),
              ElementsAre(1, 1, 1, 1, 3, 4, 5));
  EXPECT_THAT(KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.merges"),
              ElementsAre("a b"));
  EXPECT_EQ(metadata.Find("tokenizer.ggml.scores"), nullptr);
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.eos_token_id"), 4u);
  EXPECT_EQ(KeyOf<uint32_t>(metadata, "tokenizer.ggml.bos_token_id"), 0u);
  EXPECT_FALSE(KeyOf<bool>(metadata, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.chat_template"), "{{ x }}");

  files.chat_template = "{{ y }}";
  Json older = ByteLevelBpe();
  older["model"]["merges"] = Json::array({"a b"});
  files.tokenizer_json = older.dump();
  ASSERT_OK(SetGgufTokenizer(files, 7, &metadata));
  EXPECT_THAT(KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.merges"),
              ElementsAre("a b"));
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.chat_template"), "{{ y }}");
}

TEST(GgufTokenizerTest, SeveralChatTemplatesAreNamed) {
  GgufTokenizerFiles files;
  files.tokenizer_json = ByteLevelBpe().dump();
  files.tokenizer_config = R"({"chat_template": [{"name": "tool use", "template": "{{ t }}"},
                                                 {"name": "default", "template": "{{ d }}"}]})";
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(files, 7, &metadata));
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.chat_template"), "{{ d }}");
  EXPECT_EQ(KeyOf<std::string>(metadata, "tokenizer.chat_template.tool_use"), "{{ t }}");
  EXPECT_THAT(KeyOf<std::vector<std::string>>(metadata, "tokenizer.chat_templates"),
              ElementsAre("tool_use"));
}

// Gemma 3's text models have the image token of the larger ones; llama.cpp's converter leaves it out.
TEST(GgufTokenizerTest, AnAddedTokenWithoutAnEmbeddingIsLeftOut) {
  GgufTokenizerFiles files;
  files.tokenizer_json = ByteLevelBpe().dump();
  GgufMetadata metadata;
  ASSERT_OK(SetGgufTokenizer(files, 5, &metadata));
  EXPECT_THAT(KeyOf<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "ab", "\xc4\xa0", "<|end|>"));
}

TEST(GgufTokenizerTest, WhatLlamaCppLacksAndDamageAreRefused) {
  const auto set = [](const Json& tokenizer, int64_t rows) {
    GgufTokenizerFiles files;
    files.tokenizer_json = tokenizer.dump();
    GgufMetadata metadata;
    return SetGgufTokenizer(files, rows, &metadata);
  };
  ASSERT_OK(set(ByteLevelBpe(), 6));
  EXPECT_THAT(set(ByteLevelBpe(), 3), FailsWith("TOKENIZER_INVALID", HasSubstr("3 rows")));
  Json changed = ByteLevelBpe();
  changed["model"]["type"] = "Unigram";
  EXPECT_THAT(set(changed, 6), FailsWith("GGUF_TOKENIZER", HasSubstr("BPE")));
  changed = ByteLevelBpe();
  changed["added_tokens"][0]["content"] = "ab";
  EXPECT_THAT(set(changed, 6), FailsWith("TOKENIZER_INVALID", HasSubstr("\"ab\" is there twice")));
  changed = ByteLevelBpe();
  changed["model"]["merges"] = Json::array({"ab"});
  EXPECT_THAT(set(changed, 6), FailsWith("TOKENIZER_INVALID", HasSubstr("no pair")));
  changed = ByteLevelBpe();
  changed["model"]["vocab"]["a"] = "zero";
  EXPECT_THAT(set(changed, 6), FailsWith("TOKENIZER_INVALID", HasSubstr("id")));
  GgufMetadata metadata;
  EXPECT_THAT(SetGgufTokenizer({}, 6, &metadata),
              FailsWith("TOKENIZER_MISSING", HasSubstr("tokenizer.json")));
  GgufTokenizerFiles unigram;  // a trainer_spec with model_type 1
  unigram.tokenizer_model = std::string("\x12\x02\x18\x01", 4);
  EXPECT_THAT(SetGgufTokenizer(unigram, 6, &metadata),
              FailsWith("GGUF_TOKENIZER", HasSubstr("SentencePiece")));
}

}  // namespace
}  // namespace lwq
