#include "tests/testing/tiny_model.h"

#include <string>

#include "base/file.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

TinyModelOptions Smallest() {
  TinyModelOptions options;
  options.num_layers = 1;
  options.hidden_size = 32;
  options.intermediate_size = 64;
  options.vocab_size = 64;
  return options;
}

TEST(TinyModelTest, WritesTheSameBytesForTheSameSeed) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  TinyModelOptions options = Smallest();
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/a"));
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/b"));
  options.seed = 2;
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/c"));
  LWQ_ASSERT_OK_AND_ASSIGN(auto a, Sha256HexOfFile(dir.path() + "/a/model.safetensors"));
  LWQ_ASSERT_OK_AND_ASSIGN(auto b, Sha256HexOfFile(dir.path() + "/b/model.safetensors"));
  LWQ_ASSERT_OK_AND_ASSIGN(auto c, Sha256HexOfFile(dir.path() + "/c/model.safetensors"));
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(TinyModelTest, CopiesTheTokenizerWhereTheVocabularyHoldsIt) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  TinyModelOptions options = Smallest();
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/a"));
  EXPECT_FALSE(FileExists(dir.path() + "/a/tokenizer.json"));
  options.vocab_size = kSampleVocabSize;
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/b"));
  EXPECT_TRUE(FileExists(dir.path() + "/b/tokenizer.json"));
}

TEST(TinyModelTest, CutsIntoTheShardsAskedFor) {
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory dir, TempDirectory::Create());
  TinyModelOptions options = Smallest();
  options.num_shards = 3;
  ASSERT_OK(WriteTinyModel(options, dir.path() + "/a"));
  EXPECT_TRUE(FileExists(dir.path() + "/a/model-00003-of-00003.safetensors"));
  EXPECT_TRUE(FileExists(dir.path() + "/a/model.safetensors.index.json"));
  EXPECT_FALSE(FileExists(dir.path() + "/a/model.safetensors"));
}

TEST(TinyModelTest, RefusesSizesThatMakeNoModel) {
  TinyModelOptions options = Smallest();
  options.num_heads = 5;
  EXPECT_THAT(WriteTinyModel(options, "/nowhere/at/all"),
              FailsWith("TINY_MODEL_OPTIONS", ::testing::HasSubstr("heads")));
}

}  // namespace
}  // namespace lwq::testing
