#include "worker/engine/eval/text_windows.h"

#include "base/file.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/eval/byte_tokenizer.h"
#include "worker/engine/eval/dataset.h"

namespace lwq {
namespace {

using testing::ByteTokenizer;
using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;

constexpr int32_t kBos = 256;

absl::StatusOr<TokenBatch> Cut(const Tokenizer& tokenizer, BosMode mode,
                               const std::vector<std::string>& documents, int64_t length,
                               int64_t max_windows) {
  LWQ_ASSIGN_OR_RETURN(const RequestEncoder encoder, RequestEncoder::Create(&tokenizer, mode));
  LWQ_ASSIGN_OR_RETURN(DisjointWindows windows,
                       DisjointWindows::Create(&encoder, length, max_windows));
  for (const std::string& document : documents) {
    LWQ_ASSIGN_OR_RETURN(const bool wants_more, windows.Add(document));
    if (!wants_more) break;
  }
  return windows.Finish();
}

// Another's tokens, with an end of text named: what comes of tokenizer.json alone has none.
class EndNamed : public Tokenizer {
 public:
  explicit EndNamed(const Tokenizer* other) : other_(*other) {}
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, bool special) const override {
    return other_.Encode(text, special);
  }
  std::string Decode(const std::vector<int32_t>& ids) const override { return other_.Decode(ids); }
  int64_t vocab_size() const override { return other_.vocab_size(); }
  int32_t bos_id() const override { return other_.bos_id(); }
  int32_t eos_id() const override { return 0; }
  bool adds_bos() const override { return other_.adds_bos(); }

 private:
  const Tokenizer& other_;
};

TEST(TextWindowsTest, EveryWindowBeginsWithBosWhereTheTokenizerAddsIt) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TokenBatch windows,
                           Cut(ByteTokenizer(true), BosMode::kTokenizer, {"abc", "defgh"}, 4, 0));
  EXPECT_THAT(windows.tokens, ElementsAre(kBos, 'a', 'b', 'c', kBos, 'd', 'e', 'f'));
  ASSERT_EQ(windows.segments.size(), 2u);
  EXPECT_EQ(windows.segments[1].size, 4);
}

TEST(TextWindowsTest, BosFollowsTheModeOfTheEncoder) {
  LWQ_ASSERT_OK_AND_ASSIGN(TokenBatch windows,
                           Cut(ByteTokenizer(false), BosMode::kAlways, {"abcd"}, 3, 0));
  EXPECT_THAT(windows.tokens, ElementsAre(kBos, 'a', 'b', kBos, 'c', 'd'));
  LWQ_ASSERT_OK_AND_ASSIGN(windows,
                           Cut(ByteTokenizer(false), BosMode::kTokenizer, {"abcd", "ef"}, 3, 0));
  EXPECT_THAT(windows.tokens, ElementsAre('a', 'b', 'c', 'd', 'e', 'f'));
  LWQ_ASSERT_OK_AND_ASSIGN(windows,
                           Cut(ByteTokenizer(true), BosMode::kNever, {"abcd", "ef"}, 3, 0));
  EXPECT_THAT(windows.tokens, ElementsAre('a', 'b', 'c', 'd', 'e', 'f'));
}

TEST(TextWindowsTest, ATextWithoutOneWindowIsRefused) {
  EXPECT_THAT(Cut(ByteTokenizer(true), BosMode::kTokenizer, {"ab"}, 4, 0),
              FailsWith("TEXT_TOO_SHORT", HasSubstr("2 tokens; one window needs 3")));
  EXPECT_THAT(Cut(ByteTokenizer(true), BosMode::kTokenizer, {"ab"}, 1, 0),
              FailsWith("SEQUENCE_LENGTH_INVALID", HasSubstr("1 tokens")));
}

TEST(TextWindowsTest, OfALongTextOnlyTheBeginningIsEncoded) {
  const ByteTokenizer tokenizer(true);
  const std::string text(10 << 20, 'a');
  LWQ_ASSERT_OK_AND_ASSIGN(const TokenBatch windows,
                           Cut(tokenizer, BosMode::kTokenizer, {"b", text, "never asked"}, 4, 2));
  EXPECT_THAT(windows.tokens, ElementsAre(kBos, 'b', 'a', 'a', kBos, 'a', 'a', 'a'));
  EXPECT_LT(tokenizer.num_encoded(), 4096);
}

// The beginning of a text has the tokens that it has in the whole, for vocabularies of each kind.
TEST(TextWindowsTest, TokensOfABeginningAreThoseOfTheWhole) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string book,
                           ReadFile(testing::SampleModelPath() + "/held-out.txt", 64 << 20));
  const absl::string_view text = TextBeginning(book, 60000);
  std::string one_line(text);
  for (char& c : one_line) c = c == '\n' ? ' ' : c;
  std::vector<std::string> models = {testing::SampleModelPath()};
  for (const char* name : {"llama2", "gpt-neox-20b", "dolma2", "mistral-v1", "mistral-v3"}) {
    const std::string path = testing::SharedDataPath(absl::StrCat("tokenizers/", name));
    if (FileExists(path)) models.push_back(path);
  }
  for (const std::string& model : models) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(model));
    const EndNamed named(tokenizer.get());
    LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                             RequestEncoder::Create(&named, BosMode::kTokenizer));
    for (const absl::string_view whole : {text, absl::string_view(one_line)}) {
      LWQ_ASSERT_OK_AND_ASSIGN(const auto all, encoder.EncodeText(whole));
      std::vector<int64_t> counts = {1003, 5000, 1000000};
      for (int64_t few = 1; few < 200; ++few) counts.push_back(few);
      for (const int64_t count : counts) {
        LWQ_ASSERT_OK_AND_ASSIGN(const auto some, encoder.EncodeBeginning(whole, count));
        const auto size = std::min<size_t>(static_cast<size_t>(count), all.size());
        ASSERT_EQ(some.size(), size) << model;
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << model << " " << count;
      }
    }
  }
}

TEST(TextWindowsTest, LeadingTextGoesOnBehindADocumentUntilItIsFull) {
  LeadingText text(10);
  EXPECT_TRUE(text.Add(""));
  EXPECT_TRUE(text.Add("four"));
  EXPECT_FALSE(text.Add("too long for it"));  // four and six are ten
  EXPECT_THAT(text.documents(), ElementsAre("", "four", "too lo"));
  LeadingText full(4);
  EXPECT_FALSE(full.Add("four"));
}

TEST(TextWindowsTest, ABeginningEndsWithALineOrBetweenCharacters) {
  EXPECT_EQ(TextBeginning("ab\ncd\nef", 7), "ab\ncd\n");
  EXPECT_EQ(TextBeginning("ab\ncdefgh", 7), "ab\ncdef");  // the line's end is in the first half
  EXPECT_EQ(TextBeginning("a\u20ac\u20ac", 5), "a\u20ac");
  EXPECT_EQ(TextBeginning("ab", 7), "ab");
}

TEST(TextWindowsTest, DocumentsAreReadUntilThereAreEnough) {
  std::vector<std::string> read;
  ASSERT_OK(ForEachDocument("{\"text\": \"a\"}\n\n{\"content\": \"b\"}\nbroken",
                            DatasetKind::kJsonLines,
                            [&](absl::string_view document) -> absl::StatusOr<bool> {
                              read.emplace_back(document);
                              return read.size() < 2;
                            }));
  EXPECT_THAT(read, ElementsAre("a", "b"));
}

}  // namespace
}  // namespace lwq
