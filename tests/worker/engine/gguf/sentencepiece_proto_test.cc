#include "worker/engine/gguf/sentencepiece_proto.h"

#include "base/file.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

std::string Sample() {
  return ReadFile(testing::SampleModelPath() + "/tokenizer.model", 1 << 20).value_or("");
}

TEST(SentencePieceProtoTest, SampleHasItsPieces) {
  LWQ_ASSERT_OK_AND_ASSIGN(const SentencePieces model, ReadSentencePieces(Sample()));
  ASSERT_EQ(model.pieces.size(), 4096u);
  EXPECT_EQ(model.model_type, 2);
  EXPECT_TRUE(model.add_dummy_prefix);
  EXPECT_FALSE(model.remove_extra_whitespaces);
  EXPECT_EQ(model.pieces[0].text, "<unk>");
  EXPECT_EQ(model.pieces[0].type, 2);
  EXPECT_EQ(model.pieces[1].type, 3);
  EXPECT_EQ(model.pieces[3].text, "<0x00>");
  EXPECT_EQ(model.pieces[3].type, 6);
  EXPECT_EQ(model.pieces[259].text, "\xe2\x96\x81t");
  EXPECT_EQ(model.pieces[259].type, 1);
  EXPECT_EQ(model.pieces[260].score, -1.0f);
}

TEST(SentencePieceProtoTest, DamageIsRefused) {
  const std::string sample = Sample();
  // The first piece takes 16 bytes; a cut at the end of a field is a shorter message.
  int refused = 0;
  for (size_t size = 1; size < 64; ++size) {
    const auto model = ReadSentencePieces(sample.substr(0, size));
    if (!model.ok()) {
      EXPECT_THAT(model, FailsWith("TOKENIZER_INVALID", HasSubstr("tokenizer.model")));
      ++refused;
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_THAT(ReadSentencePieces(std::string(12, '\xff')),
              FailsWith("TOKENIZER_INVALID", HasSubstr("damaged")));
  // A piece of type 9.
  EXPECT_THAT(ReadSentencePieces(std::string("\x0a\x02\x18\x09", 4)),
              FailsWith("TOKENIZER_INVALID", HasSubstr("type 9")));
}

}  // namespace
}  // namespace lwq
