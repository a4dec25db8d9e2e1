#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/made_gguf.h"
#include "worker/engine/gguf/gguf_reader.h"

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
    const absl::StatusOr<GgufHeader> header = ParseGgufHeader(
        absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(file.data()), file.size()), "mutant");
    if (!header.ok()) {
      ASSERT_TRUE(absl::StartsWith(ReasonOf(header.status()), "GGUF_")) << header.status();
      continue;
    }
    ++accepted;
    for (size_t t = 0; t < header->tensors.size(); ++t) {
      ASSERT_LE(header->data_offset + header->offsets[t] + header->tensors[t].size_bytes(),
                static_cast<int64_t>(file.size()));
    }
    const absl::StatusOr<GgufLayout> again = LayOutGguf(header->metadata, header->tensors);
    ASSERT_OK(again);
    ASSERT_EQ(static_cast<int64_t>(again->header.size()), header->data_offset);
    ASSERT_EQ(again->offsets, header->offsets);
    // The version may be 2, and padding may be anything.
    const size_t padding = static_cast<size_t>(again->alignment);
    const size_t compared = again->header.size() - std::min(padding, again->header.size());
    for (size_t at = 8; at < compared; ++at) ASSERT_EQ(again->header[at], file[at]) << at;
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace lwq::testing
