#include <cstring>

#include "absl/strings/match.h"
#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/made_gguf.h"
#include "worker/engine/artifact/gguf_model_keys.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/gguf/gguf_tokenizer.h"
#include "worker/engine/io/json_file.h"

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

// Only tokenizer.model is not JSON, whose text is checked before it comes here.
TEST(GgufFuzzTest, MutantsOfTokenizerModelAreRefusedOrWritten) {
  GgufTokenizerFiles files;
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
    files.tokenizer_model = mutator.Mutate(seed);
    if (files.tokenizer_model.empty()) continue;  // no file
    GgufMetadata metadata;
    const absl::Status status = SetGgufTokenizer(files, 4096, &metadata);
    if (status.ok()) {
      ++accepted;
    } else {
      ASSERT_TRUE(ReasonOf(status) == "TOKENIZER_INVALID" || ReasonOf(status) == "GGUF_TOKENIZER")
          << status;
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(GgufFuzzTest, MutantsOfConfigAndTokenizerJsonAreRefusedOrRead) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string config,
                           ReadFile(SampleModelPath() + "/config.json", 1 << 20));
  const std::string tokenizer =
      R"({"added_tokens":[{"id":2,"content":"<s>","special":true}],"normalizer":null,)"
      R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
      R"("model":{"type":"BPE","byte_fallback":false,"vocab":{"a":0,"b":1,"ab":3},)"
      R"("merges":["a b",["a","b"]]},"post_processor":{"type":"TemplateProcessing","single":[]}})";
  Mutator mutator(6, {"-1", "0", "1e308", "null", "{}", "[]", "\"", "true", "18446744073709551616",
                      "rope_scaling", "\"x\":", ",", "\"type\":\"yarn\"", "[[", "\xff"});
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string mutant = mutator.Mutate(i % 2 == 0 ? config : tokenizer);
    if (!CheckJson(mutant, JsonLimits(), "mutant").ok()) continue;
    GgufTokenizerFiles files;
    files.tokenizer_json = files.tokenizer_config = files.config = mutant;
    GgufMetadata metadata;
    const absl::Status set = SetGgufTokenizer(files, 64, &metadata);
    const absl::StatusOr<DecoderSpec> spec = ParseDecoderSpec(mutant);
    const absl::Status model = spec.ok() ? MakeGgufModel(*spec, "").status() : spec.status();
    ASSERT_FALSE(absl::IsInternal(set) || absl::IsInternal(model)) << set << model;
    read += set.ok() || model.ok() ? 1 : 0;
  }
  EXPECT_GT(read, 500);
}

}  // namespace
}  // namespace lwq::testing
