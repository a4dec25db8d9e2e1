#include "gtest/gtest.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/made_gguf.h"

namespace lwq::testing {
namespace {

std::string Word(uint64_t value, size_t bytes) {
  std::string word;
  for (size_t b = 0; b < bytes; ++b) word.push_back(static_cast<char>(value >> (8 * b)));
  return word;
}

// A mutant is refused with a reason, or has its tensors inside the file and lays out again to the
// same header: the format has one way to write a thing.
TEST(GgufFuzzTest, MutantsAreRefusedOrLayOutToTheSameHeader) {
  LWQ_ASSERT_OK_AND_ASSIGN(const GgufLayout made,
                           LayOutGguf(MadeGgufMetadata(), MadeGgufTensors()));
  const std::string seed = MadeGguf(made);
  std::vector<std::string> dictionary = {"GGUF", "general.alignment", "a.u8", "b.text",
                                         "token_embd.weight"};
  for (const uint64_t value : {0, 1, 2, 4, 7, 8, 9, 12, 13, 30, 32, 256, 65535}) {
    dictionary.push_back(Word(value, 4));
    dictionary.push_back(Word(value, 8));
  }
  for (const uint64_t value : {uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0}}) {
    dictionary.push_back(Word(value, 8));
  }
  Mutator mutator(4, dictionary);
  int accepted = 0;
  for (int i = 0; i < 100000; ++i) {
    const std::string file = mutator.Mutate(seed);
    const absl::StatusOr<bool> tried = TryGguf(file);
    ASSERT_OK(tried);
    accepted += *tried ? 1 : 0;
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace lwq::testing
