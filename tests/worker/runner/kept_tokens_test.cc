#include "worker/runner/kept_tokens.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

// A token per byte, behind 256 where special tokens are added.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(int* encodings) : encodings_(*encodings) {}
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const override {
    ++encodings_;
    if (text == "bad") return absl::InvalidArgumentError("no text");
    std::vector<int32_t> ids;
    if (add_special_tokens) ids.push_back(256);
    ids.insert(ids.end(), text.begin(), text.end());
    return ids;
  }
  std::string Decode(const std::vector<int32_t>&) const override { return "decoded"; }
  int64_t vocab_size() const override { return 257; }
  int32_t bos_id() const override { return 256; }
  int32_t eos_id() const override { return 7; }
  bool adds_bos() const override { return true; }

 private:
  int& encodings_;
};

class KeptTokensTest : public ::testing::Test {
 protected:
  std::unique_ptr<Tokenizer> Make(const std::string& digest, KeptTokens* kept) {
    return KeepTokens(std::make_unique<ByteTokenizer>(&encodings_), digest, kept);
  }
  int encodings_ = 0;
  KeptTokens kept_;
};

TEST_F(KeptTokensTest, ATextIsEncodedOncePerTokenizer) {
  const auto source = Make("one", &kept_), artifact = Make("one", &kept_);
  EXPECT_THAT(*source->Encode("ab", true), ElementsAre(256, 'a', 'b'));
  EXPECT_THAT(*artifact->Encode("ab", true), ElementsAre(256, 'a', 'b'));
  EXPECT_EQ(encodings_, 1);
  EXPECT_THAT(*artifact->Encode("ab", false), ElementsAre('a', 'b'));
  EXPECT_THAT(*artifact->Encode("b", true), ElementsAre(256, 'b'));
  EXPECT_THAT(*Make("two", &kept_)->Encode("ab", true), ElementsAre(256, 'a', 'b'));
  EXPECT_EQ(encodings_, 4);
  EXPECT_EQ(artifact->Decode({}), "decoded");
  EXPECT_EQ(artifact->vocab_size(), 257);
  EXPECT_EQ(artifact->bos_id(), 256);
  EXPECT_EQ(artifact->eos_id(), 7);
  EXPECT_TRUE(artifact->adds_bos());
}

TEST_F(KeptTokensTest, NothingIsKeptOfErrorsAndOfTokenizersWithoutADigest) {
  const auto tokenizer = Make("one", &kept_);
  EXPECT_FALSE(tokenizer->Encode("bad", true).ok());
  EXPECT_FALSE(tokenizer->Encode("bad", true).ok());
  EXPECT_EQ(encodings_, 2);
  for (const auto& plain : {Make("", &kept_), Make("one", nullptr)}) {
    EXPECT_OK(plain->Encode("ab", true));
    EXPECT_OK(plain->Encode("ab", true));
  }
  EXPECT_EQ(encodings_, 6);
}

TEST_F(KeptTokensTest, WhatWasUsedLongestAgoGoes) {
  const auto tokenizer = Make("one", &kept_);
  const size_t size = KeptTokens::kMaxTokens / 2 - KeptTokens::kTextTokens;
  const std::string half(size, 'x'), most(size, 'y');
  for (const std::string& text : {half, most, half, std::string("z"), half}) {
    EXPECT_OK(tokenizer->Encode(text, false));
  }
  EXPECT_EQ(encodings_, 3) << "the first was used again";
  EXPECT_OK(tokenizer->Encode(most, false));
  EXPECT_EQ(encodings_, 4) << "the second made room for the third";
  EXPECT_OK(tokenizer->Encode(std::string(KeptTokens::kMaxTokens + 1, 'x'), false));
  EXPECT_OK(tokenizer->Encode(most, false));
  EXPECT_EQ(encodings_, 5) << "what is too large of itself makes no room";
}

}  // namespace
}  // namespace lwq
