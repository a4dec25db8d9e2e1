#include <cstring>

#include "gtest/gtest.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

TEST(TokenizerFuzzTest, MutantsOfTokenizerModelAreRefusedOrRead) {
  std::string seed;
  for (const char* text : {"<unk>", "<s>", "<0x41>", "\xe2\x96\x81", "a", "ab"}) {
    const std::string piece = std::string("\x0a") + static_cast<char>(std::strlen(text)) + text +
                              std::string("\x15\x00\x00\x80\xbf", 5);  // score -1
    seed += std::string("\x0a") + static_cast<char>(piece.size()) + piece;
  }
  seed += std::string("\x12\x02\x18\x02\x1a\x04\x18\x01\x20\x00", 10);  // BPE, with a prefix
  Mutator mutator(
      5, {"\x0a", "\x12", "\x18\x02", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "<unk>"});
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    const absl::StatusOr<bool> tried = TrySentencePiece(mutator.Mutate(seed));
    ASSERT_OK(tried);
    accepted += *tried ? 1 : 0;
  }
  EXPECT_GT(accepted, 100);
}

TEST(TokenizerFuzzTest, MutantsOfTokenizerJsonAreRefusedOrRead) {
  const std::string tokenizer =
      R"({"added_tokens":[{"id":2,"content":"<s>","special":true}],"normalizer":null,)"
      R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
      R"("model":{"type":"BPE","byte_fallback":false,"vocab":{"a":0,"b":1,"ab":3},)"
      R"("merges":["a b",["a","b"]]},"post_processor":{"type":"TemplateProcessing","single":[]}})";
  Mutator mutator(6, {"-1", "0", "1e308", "null", "{}", "[]", "\"", "true", "18446744073709551616",
                      "\"x\":", ",", "\"type\":\"Split\"", "[[", "\xff", std::string("\0", 1)});
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string mutant = mutator.Mutate(tokenizer + std::string("\0ab<s>ba", 9));
    const absl::StatusOr<bool> tried = TryTokenizerJson(mutant);
    ASSERT_OK(tried) << mutant;
    read += *tried ? 1 : 0;
  }
  EXPECT_GT(read, 500);
}

}  // namespace
}  // namespace lwq::testing
