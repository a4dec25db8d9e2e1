#include "worker/engine/gguf/gguf_reader.h"

#include <cstring>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/made_gguf.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;
using testing::MadeGguf;
using testing::MadeGgufMetadata;
using testing::MadeGgufTensors;

absl::StatusOr<GgufHeader> Parse(const std::string& file) {
  return ParseGgufHeader(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(file.data()), file.size()), "f.gguf");
}

std::string Made() {
  const absl::StatusOr<GgufLayout> layout = LayOutGguf(MadeGgufMetadata(), MadeGgufTensors());
  return layout.ok() ? MadeGguf(*layout) : std::string();
}

// The file with `bytes` written over it at the first place where `mark` ends.
std::string After(std::string file, const std::string& mark, const std::string& bytes) {
  return file.replace(file.find(mark) + mark.size(), bytes.size(), bytes);
}

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

TEST(GgufReaderTest, FindsWhatWasLaidOut) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "made.gguf");
  ASSERT_OK(WriteFileAtomically(path, Made()));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  EXPECT_EQ(file->header().metadata.entries(), MadeGgufMetadata().entries());
  const std::vector<GgufTensorSpec> expected = MadeGgufTensors();
  ASSERT_EQ(file->header().tensors.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const GgufTensorSpec& tensor = file->header().tensors[i];
    EXPECT_EQ(tensor.name, expected[i].name);
    EXPECT_EQ(tensor.type, expected[i].type);
    EXPECT_EQ(tensor.shape, expected[i].shape);
    ASSERT_EQ(file->Find(tensor.name), static_cast<int>(i));
    const absl::Span<const uint8_t> bytes = file->Bytes(static_cast<int>(i));
    ASSERT_EQ(static_cast<int64_t>(bytes.size()), expected[i].size_bytes());
    EXPECT_EQ(bytes[0], i);
    EXPECT_EQ(bytes[3], i + 3);
  }
  EXPECT_EQ(file->Find("blk.1.attn_q.weight"), -1);
}

TEST(GgufReaderTest, ReadsVersion2AndAFileWithoutItsLastPadding) {
  std::string file = Made();
  file[4] = 2;
  EXPECT_OK(Parse(file));
  file.resize(file.size() - 16);  // the last tensor has 48 bytes
  EXPECT_OK(Parse(file));
  file.pop_back();
  EXPECT_THAT(Parse(file), FailsWith("GGUF_SIZE", HasSubstr("cut short")));
}

TEST(GgufReaderTest, EveryPrefixIsRefused) {
  const std::string file = Made();
  for (size_t size = 0; size + 16 < file.size(); ++size) {
    const absl::StatusOr<GgufHeader> header = Parse(file.substr(0, size));
    ASSERT_FALSE(header.ok()) << size;
    ASSERT_TRUE(absl::IsDataLoss(header.status())) << header.status();
    ASSERT_THAT(ReasonOf(header.status()), ::testing::AnyOf("GGUF_TRUNCATED", "GGUF_SIZE"));
    ASSERT_THAT(std::string(header.status().message()), HasSubstr("f.gguf"));
  }
}

TEST(GgufReaderTest, CountsAndLengthsAreHeldAgainstTheFile) {
  const std::string file = Made();
  for (const uint64_t huge : {uint64_t{1} << 63, ~uint64_t{0}, uint64_t{1} << 40}) {
    std::string changed = file;
    changed.replace(8, 8, Raw(huge));
    EXPECT_THAT(Parse(changed), FailsWith("GGUF_TRUNCATED", HasSubstr("number of tensors")));
    changed = file;
    changed.replace(16, 8, Raw(huge));
    EXPECT_THAT(Parse(changed), FailsWith("GGUF_TRUNCATED", HasSubstr("number of keys")));
    changed = file;
    changed.replace(24, 8, Raw(huge));
    EXPECT_THAT(Parse(changed), FailsWith("GGUF_TRUNCATED", HasSubstr("a key at byte 32")));
    EXPECT_THAT(Parse(After(file, "b.u8" + Raw(uint32_t{9}) + Raw(uint32_t{0}), Raw(huge))),
                FailsWith("GGUF_TRUNCATED", HasSubstr("elements of \"b.u8\"")));
    EXPECT_THAT(Parse(After(file, "b.text" + Raw(uint32_t{9}) + Raw(uint32_t{8}), Raw(huge))),
                FailsWith("GGUF_TRUNCATED", HasSubstr("elements of \"b.text\"")));
    EXPECT_THAT(Parse(After(file, "general.architecture" + Raw(uint32_t{8}), Raw(huge))),
                FailsWith("GGUF_TRUNCATED", HasSubstr("general.architecture")));
  }
  EXPECT_THAT(Parse(After(file, "attn_norm.weight", Raw(uint32_t{0xffffffff}))),
              FailsWith("GGUF_TENSOR", HasSubstr("4294967295 dimensions")));
}

TEST(GgufReaderTest, AnArrayIsBoundedWhateverTheFilesSize) {
  const std::string file = Made();
  const uint64_t many = (uint64_t{1} << 22) + 1;
  const std::string array = "b.u8" + Raw(uint32_t{9}) + Raw(uint32_t{0});
  EXPECT_THAT(Parse(After(file, array, Raw(many)) + std::string(many, 'x')),
              FailsWith("GGUF_METADATA", HasSubstr("4194305 elements")));
}

TEST(GgufReaderTest, DamageIsNamed) {
  const std::string file = Made();
  EXPECT_THAT(Parse("GGML" + file.substr(4)), FailsWith("GGUF_MAGIC", HasSubstr("GGUF")));
  std::string changed = file;
  changed.replace(4, 4, Raw(uint32_t{4}));
  EXPECT_THAT(Parse(changed), FailsWith("GGUF_MAGIC", HasSubstr("version 4")));
  changed.replace(4, 4, Raw(uint32_t{3} << 24));
  EXPECT_THAT(Parse(changed), FailsWith("GGUF_MAGIC", HasSubstr("little-endian")));
  EXPECT_THAT(Parse(After(file, "a.u8", Raw(uint32_t{13}))),
              FailsWith("GGUF_METADATA", HasSubstr("type 13")));
  EXPECT_THAT(Parse(After(file, "b.u8" + Raw(uint32_t{9}), Raw(uint32_t{9}))),
              FailsWith("GGUF_METADATA", HasSubstr("elements of type 9")));
  EXPECT_THAT(Parse(After(file, "a.bool" + Raw(uint32_t{7}), Raw(uint8_t{2}))),
              FailsWith("GGUF_METADATA", HasSubstr("2 for a BOOL")));
  changed = file;
  changed.replace(file.find("a.u16"), 5, "a.i16");
  EXPECT_THAT(Parse(changed), FailsWith("GGUF_METADATA", HasSubstr("\"a.i16\" is there twice")));
  changed = file;
  changed.replace(file.find("blk.0.attn_k"), 12, "blk.0.attn_q");
  EXPECT_THAT(Parse(changed),
              FailsWith("GGUF_TENSOR", HasSubstr("\"blk.0.attn_q.weight\" is there twice")));
  const std::string attn = "blk.0.attn_q.weight";
  const std::string dimensions = Raw(uint32_t{2}) + Raw(int64_t{32}) + Raw(int64_t{2});
  EXPECT_THAT(Parse(After(file, attn + dimensions, Raw(uint32_t{19}))),
              FailsWith("GGUF_TYPE", HasSubstr("ggml type 19, lwq reads BF16")));
  EXPECT_TRUE(
      absl::IsUnimplemented(Parse(After(file, attn + dimensions, Raw(uint32_t{19}))).status()));
  EXPECT_THAT(Parse(After(file, attn + Raw(uint32_t{2}), Raw(int64_t{33}))),
              FailsWith("GGUF_TENSOR", HasSubstr("rows of 33 values")));
  EXPECT_THAT(Parse(After(file, attn + Raw(uint32_t{2}), Raw(int64_t{-32}))),
              FailsWith("GGUF_TENSOR", HasSubstr("-32")));
  EXPECT_THAT(Parse(After(file, attn + dimensions + Raw(uint32_t{8}), Raw(uint64_t{0}))),
              FailsWith("GGUF_OFFSET", HasSubstr("begins at 0")));
  EXPECT_THAT(Parse(After(file, attn + Raw(uint32_t{2}) + Raw(int64_t{32}), Raw(int64_t{1} << 40))),
              FailsWith("GGUF_SIZE", HasSubstr("blk.0.attn_q.weight")));
  EXPECT_THAT(Parse(file + std::string(32, '\0')),
              FailsWith("GGUF_SIZE", HasSubstr("bytes left over")));
}

}  // namespace
}  // namespace lwq
