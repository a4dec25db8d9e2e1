// Loading: what is added, what is refused, hostile files; decoding.
#include "worker/engine/tokenizer/tokenizer.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A tokenizer.json over a tiny byte-level vocabulary with `part` (members, with a trailing comma).
std::string TinyJson(const std::string& part,
                     const std::string& merges = R"([["a", "b"], ["ab", "c"]])") {
  return absl::StrCat("{", part, R"("model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2,
      "ab": 3, "abc": 4, "_": 5, "bc": 6}, "merges": )",
                      merges, "}}");
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& json,
                                                const std::string& config = "") {
  LWQ_ASSIGN_OR_RETURN(const TempDirectory directory, TempDirectory::Create());
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory.path(), "tokenizer.json"), json));
  if (!config.empty()) {
    LWQ_RETURN_IF_ERROR(
        WriteFileAtomically(JoinPath(directory.path(), "tokenizer_config.json"), config));
  }
  return LoadTokenizer(directory.path());
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.Encode(text, true).value();
}

TEST(TokenizerTest, NoFiles) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  EXPECT_THAT(LoadTokenizer(directory.path()),
              FailsWith("TOKENIZER_MISSING", HasSubstr("neither")));
}

TEST(TokenizerTest, SampleHasLlamaTokens) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(testing::SampleModelPath()));
  EXPECT_EQ(tokenizer->vocab_size(), 4096);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(Ids(*tokenizer, "").size(), 1u);
}

TEST(TokenizerTest, DecodeUndoesEncode) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(testing::SampleModelPath()));
  for (const std::string text :
       {"It was a dark night.", "  two  blanks", "\u00e9\u4e2d\U0001F600\n"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->Encode(text, false));
    EXPECT_EQ(tokenizer->Decode(ids), text);
  }
}

TEST(TokenizerTest, DamagedUtf8IsRefusedWithItsPlace) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(testing::SampleModelPath()));
  const std::string texts[] = {"a\xFFz",    "a\xE4\xB8",         "a\xED\xA0\x80",
                               "a\xC0\x80", "a\xF5\x80\x80\x80", "a\x80"};
  for (const std::string& text : texts) {
    EXPECT_THAT(tokenizer->Encode(text, false),
                testing::FailsWith("DATASET_INVALID", ::testing::HasSubstr("its byte 1 is 0x")));
  }
  EXPECT_OK(tokenizer->Encode("a\xF4\x8F\xBF\xBF\xEF\xBF\xBD", false));
}

TEST(TokenizerTest, MergesByRankThenPosition) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(TinyJson("")));
  EXPECT_THAT(Ids(*tokenizer, "abcab"), ElementsAre(4, 3));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto other, Load(TinyJson("", R"([["b", "c"], ["a", "b"]])")));
  EXPECT_THAT(Ids(*other, "abc"), ElementsAre(0, 6));
}

TEST(TokenizerTest, AddedTokensStripAndStandAlone) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(TinyJson(R"("added_tokens": [
          {"id": 7, "content": "<l>", "lstrip": true, "special": true},
          {"id": 8, "content": "<r>", "rstrip": true, "special": true},
          {"id": 9, "content": "w", "single_word": true, "special": true},
          {"id": 10, "content": "<l>long", "special": true}],)")));
  EXPECT_THAT(Ids(*tokenizer, "a  <l>b"), ElementsAre(0, 7, 1));
  EXPECT_THAT(Ids(*tokenizer, "a<r> \n b"), ElementsAre(0, 8, 1));
  EXPECT_THAT(Ids(*tokenizer, "w,awb w"), ElementsAre(9, 3, 9));
  EXPECT_THAT(Ids(*tokenizer, "<l>long<l>"), ElementsAre(10, 7));
  EXPECT_EQ(tokenizer->vocab_size(), 11);
}

// As transformers reads the two files together.
TEST(TokenizerTest, TheConfigsFlagsOfAnAddedTokenHold) {
  const std::string json = R"({"added_tokens": [{"id": 4, "content": "<e>", "single_word": false,
      "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
      "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
      "model": {"type": "BPE", "vocab": {"_": 0, "a": 1, "b": 2, "<e>": 4, "c": 3}, "merges": []}})";
  const auto ids = [&json](const std::string& flags) {
    const std::string config = absl::StrCat(
        R"({"added_tokens_decoder": {"4": {"content": "<e>", "special": true, )", flags, "}}}");
    const auto tokenizer = Load(json, config);
    EXPECT_OK(tokenizer.status());
    return Ids(**tokenizer, "a <e> b");
  };
  const std::string off = R"("single_word": false, "normalized": false, )";
  EXPECT_THAT(ids(off + R"("lstrip": false, "rstrip": false)"), ElementsAre(1, 0, 4, 0, 2));
  EXPECT_THAT(ids(off + R"("lstrip": false, "rstrip": true)"), ElementsAre(1, 0, 4, 2));
  EXPECT_THAT(ids(off + R"("lstrip": true, "rstrip": false)"), ElementsAre(1, 4, 0, 2));
}

// Words are cut in front of each mark: also of one that stands nearer to the text's begin than it
// is long, as where nothing is put before the text.
TEST(TokenizerTest, ATextThatBeginsWithAShortWordIsCut) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto tokenizer,
      Load(
          "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
          "\"\u2581\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"\u2581\": 0, \"a\": 1, \"b\": "
          "2, "
          "\"\u00e9\": 3}, \"merges\": []}}"));
  EXPECT_THAT(Ids(*tokenizer, "a b"), ElementsAre(1, 0, 2));
  EXPECT_THAT(Ids(*tokenizer, "ab b"), ElementsAre(1, 2, 0, 2));
  EXPECT_THAT(Ids(*tokenizer, "\u00e9 b"), ElementsAre(3, 0, 2));
  EXPECT_THAT(Ids(*tokenizer, "aab  b"), ElementsAre(1, 1, 2, 0, 0, 2));
  EXPECT_THAT(Ids(*tokenizer, " a"), ElementsAre(0, 1));
}

TEST(TokenizerTest, ConfigDecidesAboutBos) {
  const std::string json = TinyJson(R"("added_tokens": [{"id": 7, "content": "<s>"}],)");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto with, Load(json, R"({"bos_token": {"content": "<s>"},
                                                          "add_bos_token": true})"));
  EXPECT_THAT(Ids(*with, "a"), ElementsAre(7, 0));
  EXPECT_TRUE(with->adds_bos());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto without, Load(json, R"({"bos_token": "<s>"})"));
  EXPECT_THAT(Ids(*without, "a"), ElementsAre(0));
  EXPECT_EQ(without->bos_id(), 7);
  EXPECT_THAT(Load(json, R"({"bos_token": "<nope>", "add_bos_token": true})"),
              FailsWith("TOKENIZER_INVALID", HasSubstr("add_bos_token")));
}

TEST(TokenizerTest, UnknownPartsAreRefusedByName) {
  const std::pair<const char*, const char*> parts[] = {
      {R"("normalizer": {"type": "NFKC"},)", "NFKC"},
      {R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]},)",
       "Lowercase"},
      {R"("pre_tokenizer": {"type": "UnicodeScripts"},)", "UnicodeScripts"},
      {R"("post_processor": {"type": "BertProcessing"},)", "BertProcessing"},
      {R"("decoder": {"type": "WordPiece"},)", "WordPiece"},
      {R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a{2}+"}, "behavior": "Isolated"},)",
       "{...}+"},
      {R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"},)",
       "&&"},
  };
  for (const auto& [part, name] : parts) {
    EXPECT_THAT(Load(TinyJson(part)), FailsWith("TOKENIZER_UNSUPPORTED", HasSubstr(name)));
  }
  EXPECT_THAT(Load(R"({"model": {"type": "WordPiece", "vocab": {}}})"),
              FailsWith("TOKENIZER_UNSUPPORTED", HasSubstr("WordPiece")));
}

TEST(TokenizerTest, HostileFiles) {
  const std::pair<std::string, const char*> files[] = {
      {"", "JSON"},
      {"{\"model\": ", "JSON"},
      {std::string(1'000'000, '['), "nested deeper"},
      {"[]", "not a JSON object"},
      {R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})", "integer"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})", "integer"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}})", "ids from 0"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})", "id 0 is given"},
      {TinyJson("", R"([["a", "c"]])"), "not in the vocabulary"},
      {TinyJson("", R"(["a b c"])"), "not a pair"},
      {TinyJson("", R"([["abc"]])"), "not a pair"},
      {TinyJson(R"("added_tokens": [{"id": 77, "content": "<s>"}],)"), "expected 7"},
      {TinyJson(R"("post_processor": {"type": "TemplateProcessing", "single":
          [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
          "special_tokens": {"x": {"ids": [99]}}},)"),
       "outside the vocabulary"},
      {TinyJson(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("},
          "behavior": "Isolated"},)"),
       "does not compile"},
  };
  for (const auto& [json, message] : files) {
    EXPECT_THAT(Load(json), FailsWith("TOKENIZER_INVALID", HasSubstr(message)));
  }
}

TEST(TokenizerTest, CatastrophicExpressionEnds) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto tokenizer,
      Load(TinyJson(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"},
                       "behavior": "Isolated"},)")));
  EXPECT_THAT(tokenizer->Encode(std::string(50, 'a') + "b", true),
              FailsWith("TOKENIZER_INVALID", HasSubstr("match limit")));
}

TEST(TokenizerTest, DamagedSentencePieceModel) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  ASSERT_OK(
      WriteFileAtomically(JoinPath(directory.path(), "tokenizer.model"), "\x0a\xff\xff junk"));
  EXPECT_THAT(LoadTokenizer(directory.path()),
              FailsWith("TOKENIZER_INVALID", HasSubstr("Sentence")));
}

}  // namespace
}  // namespace lwq
