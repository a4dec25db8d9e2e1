// What qwen.tiktoken says as a tokenizer.json, and damage. Its ids against the tiktoken library's:
// tests/peers/qwen_tokens_test.py.
#include "worker/engine/tokenizer/tiktoken.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;

std::vector<std::string> Bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return tokens;
}

// All bytes, then `more`.
std::string File(const std::vector<std::string>& more, absl::string_view end_of_line = "\n") {
  std::vector<std::string> tokens = Bytes();
  tokens.insert(tokens.end(), more.begin(), more.end());
  std::string file;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    absl::StrAppend(&file, absl::Base64Escape(tokens[rank]), " ", rank, end_of_line);
  }
  return file;
}

class TiktokenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory model, TempDirectory::Create());
    model_ = std::make_unique<TempDirectory>(std::move(model));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& file) {
    LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(model_->path(), "qwen.tiktoken"), file));
    return LoadTokenizer(model_->path());
  }
  std::vector<int32_t> Ids(const Tokenizer& tokenizer, absl::string_view text) {
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, true);
    EXPECT_OK(ids.status());
    return ids.ok() ? *ids : std::vector<int32_t>();
  }
  std::unique_ptr<TempDirectory> model_;
};

TEST_F(TiktokenTest, TheLowestRankIsJoinedFirstAndAWholeWordIsItsToken) {
  // "abcde" is never made of two tokens, but is one as a word.
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(File({"bc", "ab", "abc", "cd", "abcde"})));
  EXPECT_THAT(Ids(*tokenizer, "abc"), ElementsAre(258));
  EXPECT_THAT(Ids(*tokenizer, "abx"), ElementsAre(257, 'x'));
  EXPECT_THAT(Ids(*tokenizer, "xabcd"), ElementsAre('x', 258, 'd'));
  EXPECT_THAT(Ids(*tokenizer, "abcde"), ElementsAre(260));
  EXPECT_THAT(Ids(*tokenizer, "xabcde"), ElementsAre('x', 258, 'd', 'e'));
  EXPECT_THAT(Ids(*tokenizer, "cdcd"), ElementsAre(259, 259));
}

TEST_F(TiktokenTest, SpecialTokensFollowTheRanks) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(File({}, "\r\n")));
  EXPECT_THAT(Ids(*tokenizer, "<|im_start|>a<|im_end|><|endoftext|><|extra_0|><|extra_204|>"),
              ElementsAre(257, 'a', 258, 256, 259, 463));
  EXPECT_EQ(Ids(*tokenizer, "<|extra_205|>").size(), 13u);
  EXPECT_EQ(tokenizer->vocab_size(), 464);
  EXPECT_EQ(tokenizer->eos_id(), 256);
  EXPECT_EQ(tokenizer->bos_id(), -1);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->Decode({257, 'a', 258}), "<|im_start|>a<|im_end|>");
  // A text is composed before anything is looked for in it: "e" and an acute accent are one letter.
  EXPECT_THAT(Ids(*tokenizer, "e\xcc\x81"), ElementsAre(0xc3, 0xa9));
}

// What llama.cpp calls qwen2 knows merges only.
TEST_F(TiktokenTest, MergesAreIgnoredWhereTheyDoNotMakeAToken) {
  EXPECT_THAT(TokenizerJsonOfTiktoken(File({"ab", "abc"})).value(),
              HasSubstr("\"ignore_merges\":false"));
  EXPECT_THAT(TokenizerJsonOfTiktoken(File({"ab", "abcd"})).value(),
              HasSubstr("\"ignore_merges\":true"));
}

TEST_F(TiktokenTest, OtherFilesComeFirst) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto ours, Load(File({})));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string made, ReadTokenizerText(model_->path()));
  EXPECT_THAT(made, HasSubstr("<|extra_204|>"));
  const std::string other = R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})";
  ASSERT_OK(WriteFileAtomically(JoinPath(model_->path(), "tokenizer.json"), other));
  EXPECT_THAT(ReadTokenizerText(model_->path()), testing::IsOk());
  EXPECT_EQ(*ReadTokenizerText(model_->path()), other);
}

TEST_F(TiktokenTest, DamageIsNamed) {
  const struct {
    std::string file;
    const char* message;
  } cases[] = {{File({}) + "YWI=\n", "line 257"},
               {File({}) + "YWI= x\n", "line 257"},
               {File({}) + "Y*I= 256\n", "line 257"},
               {File({}) + " 256\n", "line 257"},
               {File({}) + "YWI= 257\n", "has the rank 257"},
               {File({}) + "YWI= 255\n", "has the rank 255"},
               {File({}) + "YWI= -1\n", "has the rank -1"},
               {File({"a"}), "the tokens 97 and 256 are the same bytes"},
               {File({std::string(1025, 'a')}), "1 to 1024 bytes"},
               {"YWI= 0\n", "the byte 0 is no token"},
               {"", "the byte 0 is no token"}};
  for (const auto& c : cases) {
    EXPECT_THAT(TokenizerJsonOfTiktoken(c.file),
                FailsWith("TOKENIZER_INVALID", HasSubstr(c.message)));
  }
  EXPECT_OK(TokenizerJsonOfTiktoken(File({std::string(1024, 'a')})));
}

}  // namespace
}  // namespace lwq
