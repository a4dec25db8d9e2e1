// Every shared text gives the ids that Hugging Face recorded
// (tests/peers/record_tokenizer_hashes.py wrote tests/golden/tokenizer-hashes.json).
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

Json Golden() {
  std::ifstream file(LWQ_SOURCE_DIR "/tests/golden/tokenizer-hashes.json");
  return Json::parse(file);
}

// A directory holding one of the shared tokenizers under the name that LoadTokenizer looks for.
class ModelDirectory {
 public:
  explicit ModelDirectory(const std::string& name) : directory_(*TempDirectory::Create()) {
    if (name == "sample-json") Copy(testing::SampleModelPath() + "/tokenizer.json");
    if (name == "sample-model") Copy(testing::SampleModelPath() + "/tokenizer.model");
    const std::string folder = testing::SharedDataPath("tokenizers/" + name);
    Copy(folder + "/tokenizer.json");
    Copy(folder + "/tokenizer.model");
    if (name == "gpt2") WriteGpt2(folder);
  }
  const std::string& path() const { return directory_.path(); }
  bool empty() const { return ListDirectory(path())->empty(); }

 private:
  void Copy(const std::string& from) {
    const absl::StatusOr<std::string> bytes = ReadFile(from, 64 << 20);
    if (!bytes.ok()) return;
    ASSERT_OK(WriteFileAtomically(JoinPath(path(), Basename(from)), *bytes));
  }
  void WriteGpt2(const std::string& folder) {
    const absl::StatusOr<std::string> vocab = ReadFile(folder + "/vocab.json", 64 << 20);
    const absl::StatusOr<std::string> merges = ReadFile(folder + "/merges.txt", 64 << 20);
    if (!vocab.ok() || !merges.ok()) return;
    Json list = Json::array();
    for (const absl::string_view line : absl::StrSplit(*merges, '\n', absl::SkipEmpty())) {
      if (line.substr(0, 8) != "#version") list.push_back(std::string(line));
    }
    const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    const Json json = {
        {"added_tokens",
         {{{"id", 50256}, {"content", "<|endoftext|>"}, {"special", true}, {"normalized", true}}}},
        {"pre_tokenizer", byte_level},
        {"decoder", byte_level},
        {"model", {{"type", "BPE"}, {"vocab", Json::parse(*vocab)}, {"merges", list}}}};
    ASSERT_OK(WriteFileAtomically(JoinPath(path(), "tokenizer.json"), json.dump()));
  }
  TempDirectory directory_;
};

std::string HashOf(const std::vector<int32_t>& ids) {
  // Little-endian machines only, as all of lwq.
  return Sha256Hex(
      absl::string_view(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)));
}

class TokenizerGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldenTest, HardStrings) {
  const ModelDirectory directory(GetParam());
  if (directory.empty()) GTEST_SKIP() << "needs the shared tokenizer " << GetParam();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(directory.path()));
  const Json golden = Golden();
  for (size_t i = 0; i < golden["hard"].size(); ++i) {
    const std::string text = golden["hard"][i];
    LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids, tokenizer->Encode(text, true));
    EXPECT_EQ(ids, golden["hard_ids"][GetParam()][i].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(TokenizerGoldenTest, SharedTexts) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("gutenberg");
  const ModelDirectory directory(GetParam());
  if (directory.empty()) GTEST_SKIP() << "needs the shared tokenizer " << GetParam();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(directory.path()));
  const Json golden = Golden();
  int num_files = 0;
  for (const auto& [file, expected] : golden["files"][GetParam()].items()) {
    const absl::StatusOr<std::string> text = ReadFile(testing::SharedDataPath(file), 64 << 20);
    if (!text.ok()) continue;
    LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids, tokenizer->Encode(*text, true));
    EXPECT_EQ(ids.size(), expected["n"].get<size_t>()) << file;
    EXPECT_EQ(HashOf(ids), expected["sha256"].get<std::string>()) << file;
    ++num_files;
  }
  EXPECT_GT(num_files, 0);
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGoldenTest,
                         ::testing::Values("sample-json", "sample-model", "gpt2", "dolma2",
                                           "gpt-neox-20b", "torchtitan-test", "llama2",
                                           "mistral-v1", "mistral-v3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// llama.cpp's vectors: ids without BOS.
class GgmlVectorTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GgmlVectorTest, AllStrings) {
  const auto& [tokenizer_name, vectors] = GetParam();
  const std::string base = "tokenizers/vectors/ggml-vocab-" + std::string(vectors);
  LWQ_SKIP_WITHOUT_SHARED_DATA(base + ".inp.txt");
  const ModelDirectory directory(tokenizer_name);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(directory.path()));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string inputs,
                           ReadFile(testing::SharedDataPath(base + ".inp.txt"), 1 << 20));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string outputs,
                           ReadFile(testing::SharedDataPath(base + ".out.txt"), 1 << 20));
  const std::vector<std::string> texts = absl::StrSplit(inputs, "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = absl::StrSplit(outputs, '\n');
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int32_t> expected;
    for (const absl::string_view id : absl::StrSplit(lines[i], ' ', absl::SkipEmpty())) {
      expected.push_back(std::stoi(std::string(id)));
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids, tokenizer->Encode(texts[i], false));
    EXPECT_EQ(ids, expected) << "string " << i << ": " << texts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgmlVectorTest,
                         ::testing::Values(std::make_pair("gpt2", "gpt-2"),
                                           std::make_pair("llama2", "llama-spm"),
                                           std::make_pair("gpt-neox-20b", "mpt")));

}  // namespace
}  // namespace lwq
