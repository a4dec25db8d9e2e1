#include "worker/engine/io/safetensors.h"

#include <ctime>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/plan/safetensors_layout.h"

namespace lwq {
namespace {

using ::testing::_;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::StatusIs;

std::string LengthBytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>((length >> (8 * i)) & 0xff));
  return bytes;
}

std::string FileOf(const std::string& json, size_t data_bytes) {
  return LengthBytes(json.size()) + json + std::string(data_bytes, '\0');
}

absl::StatusOr<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(file.data()), file.size()), "x.st");
}

std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)",
                      offsets, "}");
}

TEST(SafetensorsTest, ReadsTheWorkedExample) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a.qweight":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]},"a.scales":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}  )";
  LWQ_ASSERT_OK_AND_ASSIGN(SafetensorsHeader header, Parse(FileOf(json, 12)));
  EXPECT_EQ(header.data_offset, 168);
  ASSERT_EQ(header.entries.size(), 2u);
  EXPECT_EQ(header.entries[0].name, "a.qweight");
  EXPECT_EQ(header.entries[1].dtype, DType::kF16);
  EXPECT_EQ(header.entries[1].shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(header.entries[1].begin, 8);
  ASSERT_EQ(header.metadata.size(), 1u);
  EXPECT_EQ(header.metadata[0].second, "pt");
}

TEST(SafetensorsTest, EntriesComeInFileOrderAndScalarsAndEmptyTensorsAreLegal) {
  const std::string json =
      absl::StrCat(R"({"z":)", Tensor("F32", "[]", "[0,4]"), R"(,"a":)",
                   Tensor("U8", "[3]", "[4,7]"), R"(,"e":)", Tensor("F16", "[0,7]", "[4,4]"), "}");
  LWQ_ASSERT_OK_AND_ASSIGN(SafetensorsHeader header, Parse(FileOf(json, 7)));
  ASSERT_EQ(header.entries.size(), 3u);
  EXPECT_EQ(header.entries[0].name, "z");
  EXPECT_EQ(header.entries[1].name, "e");
  EXPECT_EQ(header.entries[2].name, "a");
}

struct HostileCase {
  const char* name;
  std::string file;
  const char* reason;
  const char* message;
};

std::string OneTensor(const std::string& tensor, size_t data_bytes) {
  return FileOf(R"({"t":)" + tensor + "}", data_bytes);
}

std::vector<HostileCase> HostileCases() {
  const std::string good = Tensor("F32", "[2]", "[0,8]");
  return {
      {"Empty", "", "ST_HEADER_LENGTH", "0 bytes"},
      {"SevenBytes", std::string(7, '\0'), "ST_HEADER_LENGTH", "7 bytes"},
      {"LengthZero", LengthBytes(0) + "{}", "ST_HEADER_LENGTH", "length 0"},
      {"LengthHuge", LengthBytes(~uint64_t{0}) + "{}", "ST_HEADER_LENGTH", "18446744073709551615"},
      {"LengthPastTheEnd", LengthBytes(3) + "{}", "ST_HEADER_LENGTH", "length 3"},
      {"LengthOverTheCap", LengthBytes(33 << 20) + std::string(34 << 20, ' '), "ST_HEADER_LENGTH",
       "accepted are 2 to 33554432"},
      {"NotAnObject", FileOf("[]", 0), "ST_HEADER_JSON", "begin with"},
      {"CutJson", FileOf(R"({"t":)", 0), "ST_HEADER_JSON", "not valid JSON"},
      {"BytesAfterTheJson", FileOf("{}{}", 0), "ST_HEADER_JSON", "not valid JSON"},
      {"NotUtf8", FileOf("{\"\xff\xfe\":1}", 0), "ST_HEADER_JSON", "not valid JSON"},
      {"DeepJson", FileOf(R"({"t":)" + std::string(1000000, '['), 0), "ST_HEADER_JSON", "\"t\""},
      {"DeepMetadata", FileOf(R"({"__metadata__":{"a":{"b":"c"}}})", 0), "ST_HEADER_JSON",
       "__metadata__"},
      {"MetadataTwice", FileOf(R"({"__metadata__":{},"__metadata__":{}})", 0), "ST_HEADER_JSON",
       "twice"},
      {"TensorTwice", FileOf(absl::StrCat(R"({"t":)", good, R"(,"t":)", good, "}"), 8),
       "ST_HEADER_JSON", "\"t\" occurs twice"},
      {"KeyTwice", OneTensor(R"({"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})", 1),
       "ST_HEADER_JSON", "\"dtype\" occurs twice"},
      {"UnknownKey", OneTensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1})", 1),
       "ST_HEADER_JSON", "unknown key"},
      {"KeyMissing", OneTensor(R"({"dtype":"U8","shape":[1]})", 1), "ST_HEADER_JSON",
       "needs dtype"},
      {"NestedShape", OneTensor(Tensor("U8", "[[1]]", "[0,1]"), 1), "ST_HEADER_JSON", "an array"},
      {"FractionalShape", OneTensor(Tensor("U8", "[1.5]", "[0,1]"), 1), "ST_HEADER_JSON",
       "integers only"},
      {"NegativeShape", OneTensor(Tensor("U8", "[-1]", "[0,1]"), 1), "ST_HEADER_JSON", "negative"},
      {"ThreeOffsets", OneTensor(Tensor("U8", "[1]", "[0,1,2]"), 1), "ST_HEADER_JSON",
       "two numbers"},
      {"OneOffset", OneTensor(Tensor("U8", "[1]", "[0]"), 1), "ST_HEADER_JSON", "two numbers"},
      {"RankNine", OneTensor(Tensor("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1), "ST_HEADER_JSON",
       "dimensions"},
      {"ControlCharacterInName", FileOf("{\"a\\u0001\":" + good + "}", 8), "ST_HEADER_JSON",
       "not acceptable"},
      {"PathLikeName", FileOf("{\"../t\":" + good + "}", 8), "ST_HEADER_JSON", "not acceptable"},
      {"EmptyName", FileOf("{\"\":" + good + "}", 8), "ST_HEADER_JSON", "not acceptable"},
      {"UnknownDtype", OneTensor(Tensor("F128", "[2]", "[0,8]"), 8), "ST_DTYPE", "F128"},
      {"ProductOverflows", OneTensor(Tensor("F32", "[4294967296,4294967296]", "[0,0]"), 0),
       "ST_OVERFLOW", "\"t\""},
      {"BitsOverflow", OneTensor(Tensor("F64", "[4503599627370496,64]", "[0,0]"), 0), "ST_OVERFLOW",
       "\"t\""},
      {"NumberOverTwoToTheFiftyThree", OneTensor(Tensor("U8", "[9007199254740993]", "[0,1]"), 1),
       "ST_OVERFLOW", "2^53"},
      {"ShapeAndLengthDisagree", OneTensor(Tensor("F32", "[3]", "[0,8]"), 8), "ST_SIZE",
       "make 12 bytes"},
      {"EndBeforeBegin", OneTensor(Tensor("F32", "[0]", "[8,0]"), 8), "ST_SIZE", "[8, 0]"},
      {"Truncated", OneTensor(good, 7), "ST_SIZE", "file has 7"},
      {"BytesLeftOver", OneTensor(good, 9), "ST_SIZE", "file has 9"},
      {"HoleAtTheStart", OneTensor(Tensor("F32", "[2]", "[4,12]"), 12), "ST_HOLE", "4 bytes after"},
      {"HoleBetween",
       FileOf(absl::StrCat(R"({"a":)", good, R"(,"b":)", Tensor("U8", "[1]", "[9,10]"), "}"), 10),
       "ST_HOLE", "\"b\""},
      {"Overlap",
       FileOf(absl::StrCat(R"({"a":)", good, R"(,"b":)", Tensor("F32", "[2]", "[4,12]"), "}"), 12),
       "ST_OVERLAP", "inside \"a\""},
      {"SameRange", FileOf(absl::StrCat(R"({"a":)", good, R"(,"b":)", good, "}"), 8), "ST_OVERLAP",
       "\"b\""},
  };
}

TEST(SafetensorsTest, EveryHostileFileGetsItsOwnReason) {
  for (const HostileCase& hostile : HostileCases()) {
    const std::clock_t start = std::clock();  // of this process, whatever else the machine does
    const auto header = Parse(hostile.file);
    EXPECT_THAT(header, FailsWith(hostile.reason, HasSubstr(hostile.message))) << hostile.name;
    EXPECT_THAT(header, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("x.st"))) << hostile.name;
    EXPECT_LT(std::clock() - start, 2 * CLOCKS_PER_SEC) << hostile.name;
  }
}

TEST(SafetensorsTest, ErrorMessagesEscapeHostileNames) {
  const auto header = Parse(OneTensor(Tensor("\\u001b[31m", "[2]", "[0,8]"), 8));
  EXPECT_THAT(header, FailsWith("ST_DTYPE", ::testing::Not(HasSubstr("\x1b"))));
}

// Whatever is accepted must be sound: ranges inside the data, sizes equal to shape times dtype.
void ExpectSound(const SafetensorsHeader& header, size_t file_bytes) {
  int64_t expected = 0;
  for (const auto& entry : header.entries) {
    ASSERT_EQ(entry.begin, expected);
    int64_t bytes = SizeOf(entry.dtype);
    for (int64_t d : entry.shape) bytes *= d;
    ASSERT_EQ(entry.end - entry.begin, bytes);
    expected = entry.end;
  }
  ASSERT_EQ(header.data_offset + expected, static_cast<int64_t>(file_bytes));
}

TEST(SafetensorsTest, MutatedHeadersNeverYieldUnsoundEntries) {
  const SafetensorsLayout layout = LayOutSafetensors({{"model.a.weight", DType::kF16, {4, 3}},
                                                      {"model.b.weight", DType::kBF16, {5}},
                                                      {"model.c", DType::kI32, {2, 2, 1}},
                                                      {"model.d", DType::kI64, {2}}});
  const std::string valid =
      layout.header + std::string(static_cast<size_t>(layout.file_bytes) - layout.header.size(), 1);
  std::mt19937 random(7);
  const std::string alphabet = "0123456789[]{},:\"\\-e. FIU\xff";
  int accepted = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string file = valid;
    const int edits = 1 + static_cast<int>(random() % 4);
    for (int e = 0; e < edits; ++e) {
      const size_t at = random() % std::min(file.size(), layout.header.size());
      const int kind = static_cast<int>(random() % 5);
      if (kind == 0) file[at] = static_cast<char>(random());
      if (kind == 1) file[at] = alphabet[random() % alphabet.size()];
      if (kind == 2) file.erase(at, 1 + random() % 3);
      if (kind == 3) file.insert(at, 1, alphabet[random() % alphabet.size()]);
      if (kind == 4 && e == 0) file.resize(1 + random() % file.size());
      // Keep the length word true half of the time, so that mutations reach the JSON.
      if (random() % 2 == 0 && file.size() > 32) {
        const int64_t json = static_cast<int64_t>(file.size()) - layout.file_bytes +
                             static_cast<int64_t>(layout.header.size()) - 8;
        if (json >= 2) file.replace(0, 8, LengthBytes(static_cast<uint64_t>(json)));
      }
      if (file.empty()) break;
    }
    const auto header = Parse(file);
    if (!header.ok()) {
      EXPECT_EQ(header.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ++accepted;
    ExpectSound(*header, file.size());
  }
  EXPECT_GT(accepted, 10) << "the mutations never left a readable header: they test nothing";
}

TEST(SafetensorsTest, OpensTheSampleModel) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      auto file, SafetensorsFile::Open(testing::SampleModelPath() + "/model.safetensors"));
  EXPECT_EQ(file->header().entries.size(), 110u);
  const TensorView view = file->View(file->header().entries.front());
  EXPECT_EQ(static_cast<int64_t>(view.bytes.size()), view.num_elements() * SizeOf(view.dtype));
}

}  // namespace
}  // namespace lwq
