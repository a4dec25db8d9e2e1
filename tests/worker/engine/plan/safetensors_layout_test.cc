#include "worker/engine/plan/safetensors_layout.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;

TEST(SafetensorsLayoutTest, EqualsTheWorkedExampleOfTheFormat) {
  const SafetensorsLayout layout =
      LayOutSafetensors({{"a.scales", DType::kF16, {1, 2}}, {"a.qweight", DType::kI32, {1, 2}}});
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a.qweight":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]},"a.scales":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}})";
  ASSERT_EQ(json.size(), 158u);
  EXPECT_EQ(layout.header, std::string("\xA0\0\0\0\0\0\0\0", 8) + json + "  ");
  EXPECT_EQ(layout.file_bytes, 180);
}

TEST(SafetensorsLayoutTest, TensorsGoByAlignmentThenName) {
  const SafetensorsLayout layout = LayOutSafetensors({{"b", DType::kU8, {3}},
                                                      {"z", DType::kF16, {1}},
                                                      {"a", DType::kBF16, {1}},
                                                      {"s", DType::kI64, {2}},
                                                      {"c", DType::kF32, {1}},
                                                      {"d", DType::kI32, {1}},
                                                      {"y", DType::kF16, {1}}});
  std::vector<std::string> names;
  for (const TensorSpec& tensor : layout.tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ::testing::ElementsAre("s", "c", "d", "a", "y", "z", "b"));
  EXPECT_THAT(layout.offsets, ::testing::ElementsAre(0, 16, 20, 24, 26, 28, 30));
  EXPECT_EQ(layout.header.size() % 8, 0u);
}

// tests/golden/safetensors/record.py: a file of the reference writer, scalar and empty tensor
// included.
TEST(SafetensorsLayoutTest, EqualsTheReferenceWritersHeader) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string reference,
      ReadFile(LWQ_SOURCE_DIR "/tests/golden/safetensors/reference.safetensors", 1 << 20));
  const SafetensorsLayout layout =
      LayOutSafetensors({{"model.b.weight", DType::kF16, {2, 3}},
                         {"model.a.weight", DType::kBF16, {4}},
                         {"model.a.weight_packed", DType::kI32, {1, 5}},
                         {"model.a.weight_shape", DType::kI64, {2}},
                         {"norm", DType::kF32, {3}},
                         {"flags", DType::kBool, {3}},
                         {"bytes", DType::kU8, {3}},
                         {"scalar", DType::kF64, {}},
                         {"empty", DType::kF16, {0, 4}}});
  EXPECT_EQ(layout.header, reference.substr(0, layout.header.size()));
  EXPECT_EQ(layout.file_bytes, static_cast<int64_t>(reference.size()));
}

TEST(SafetensorsLayoutTest, AnEmptyFileAndOddNamesAreStillJson) {
  EXPECT_THAT(LayOutSafetensors({}).header, HasSubstr(R"({"__metadata__":{"format":"pt"}})"));
  EXPECT_THAT(LayOutSafetensors({{"q\"\\\n", DType::kU8, {}}}).header,
              HasSubstr(R"("q\"\\\u000a":{"dtype":"U8","shape":[],"data_offsets":[0,1]})"));
}

TEST(CheckpointLayoutTest, ShardsStayUnderTheLimitAndKeepGroupsTogether) {
  std::vector<std::vector<TensorSpec>> groups;
  int64_t total = 0;
  for (int i = 0; i < 20; ++i) {
    groups.push_back({{absl::StrCat("t", i, ".packed"), DType::kI32, {25 + i}},
                      {absl::StrCat("t", i, ".scale"), DType::kF16, {10}}});
    total += 4 * (25 + i) + 20;
  }
  const CheckpointLayout layout = LayOutCheckpoint(groups, 1600);
  ASSERT_GT(layout.files.size(), 2u);
  int64_t sum = 0;
  for (size_t f = 0; f < layout.files.size(); ++f) {
    const auto& file = layout.files[f];
    EXPECT_LE(file.layout.file_bytes, 1600) << file.name;
    EXPECT_EQ(file.name,
              absl::StrCat("model-0000", f + 1, "-of-0000", layout.files.size(), ".safetensors"));
    EXPECT_EQ(file.layout.tensors.size() % 2, 0u) << "a linear was torn apart";
    sum += file.layout.file_bytes;
  }
  EXPECT_EQ(layout.weight_bytes, sum);
  EXPECT_THAT(layout.index_json, HasSubstr(absl::StrCat("\"total_size\": ", total)));
  EXPECT_THAT(layout.index_json, HasSubstr("\"t0.packed\": \"model-00001-of-"));
}

TEST(CheckpointLayoutTest, NoLimitMakesOneFileWithoutAnIndex) {
  const CheckpointLayout layout =
      LayOutCheckpoint({{{"a", DType::kF16, {100}}}, {{"b", DType::kF16, {100}}}}, 0);
  ASSERT_EQ(layout.files.size(), 1u);
  EXPECT_EQ(layout.files[0].name, "model.safetensors");
  EXPECT_TRUE(layout.index_json.empty());
}

TEST(CheckpointLayoutTest, AGroupOverTheLimitGetsAShardOfItsOwn) {
  const CheckpointLayout layout = LayOutCheckpoint(
      {{{"a", DType::kU8, {10}}}, {{"b", DType::kU8, {5000}}}, {{"c", DType::kU8, {10}}}}, 1000);
  ASSERT_EQ(layout.files.size(), 3u);
  EXPECT_EQ(layout.files[1].layout.tensors[0].name, "b");
}

}  // namespace
}  // namespace lwq
