#include "worker/engine/io/checkpoint.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/plan/safetensors_layout.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::StatusIs;

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dir = TempDirectory::Create();
    ASSERT_OK(dir);
    dir_ = std::make_unique<TempDirectory>(*std::move(dir));
  }
  void Write(const std::string& name, const std::string& content) {
    ASSERT_OK(WriteFileAtomically(JoinPath(dir_->path(), name), content));
  }
  // One U8 tensor per name, value `fill`.
  void WriteShard(const std::string& name, const std::vector<std::string>& tensors, char fill) {
    std::vector<TensorSpec> specs;
    for (const std::string& tensor : tensors) specs.push_back({tensor, DType::kU8, {3}});
    const SafetensorsLayout layout = LayOutSafetensors(specs);
    Write(name, layout.header + std::string(3 * tensors.size(), fill));
  }
  void WriteIndex(const std::string& weight_map) {
    Write("model.safetensors.index.json", absl::StrCat(R"({"weight_map":)", weight_map, "}"));
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() { return Checkpoint::Open(dir_->path()); }

  std::unique_ptr<TempDirectory> dir_;
};

TEST_F(CheckpointTest, JoinsTheShardsOfTheIndex) {
  WriteShard("model-00001-of-00002.safetensors", {"b"}, 1);
  WriteShard("model-00002-of-00002.safetensors", {"a", "c"}, 2);
  WriteIndex(R"({"a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors",
                 "c":"model-00002-of-00002.safetensors"})");
  LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Open());
  EXPECT_THAT(checkpoint->tensor_names(), ElementsAre("a", "b", "c"));
  LWQ_ASSERT_OK_AND_ASSIGN(TensorView a, checkpoint->Get("a"));
  EXPECT_THAT(a.bytes, ElementsAre(2, 2, 2));
  EXPECT_EQ(checkpoint->file_names().size(), 2u);
  EXPECT_THAT(checkpoint->Get("d"), FailsWith("TENSOR_MISSING", HasSubstr("\"d\"")));
}

TEST_F(CheckpointTest, TheSingleFileComesBeforeTheIndex) {
  WriteShard("model.safetensors", {"a"}, 1);
  WriteIndex(R"({"z":"gone.safetensors"})");
  LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Open());
  EXPECT_THAT(checkpoint->tensor_names(), ElementsAre("a"));
}

TEST_F(CheckpointTest, ADirectoryWithoutWeightsIsNotFound) {
  Write("pytorch_model.bin", "x");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("safetensors")));
}

TEST_F(CheckpointTest, PathsAndOtherNamesInTheIndexAreRefused) {
  WriteShard("a.safetensors", {"a"}, 1);
  for (const char* name : {"../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "a.bin",
                           "..", "a.safetensors\\u0000", ""}) {
    WriteIndex(absl::StrCat(R"({"a":")", name, R"("})"));
    EXPECT_THAT(Open(), FailsWith("INDEX_SHARD_NAME", HasSubstr("\"a\""))) << name;
  }
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  WriteShard("s.safetensors", {"a", "b"}, 1);
  WriteShard("t.safetensors", {"b"}, 1);
  WriteIndex(R"({"a":"s.safetensors","b":"gone.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("INDEX_SHARD_MISSING", HasSubstr("gone.safetensors")));
  WriteIndex(R"({"a":"s.safetensors","b":"s.safetensors","c":"s.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("TENSOR_MISSING", HasSubstr("\"c\"")));
  WriteIndex(R"({"a":"s.safetensors","b":"t.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("INDEX_TENSOR_DUPLICATE", HasSubstr("\"b\"")));
  WriteIndex(R"({"a":"s.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("INDEX_TENSOR_UNLISTED", HasSubstr("\"b\"")));
  WriteIndex(R"({"a":"s.safetensors","a":"s.safetensors","b":"s.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("INDEX_TENSOR_DUPLICATE", HasSubstr("\"a\"")));
}

TEST_F(CheckpointTest, AMalformedIndexIsRefused) {
  for (const char* map : {"[]", "3", "{\"a\":3}", "{\"a\":\"b.safetensors\"", "null"}) {
    WriteIndex(map);
    EXPECT_THAT(Open(), FailsWith("INDEX_INVALID", HasSubstr("index.json"))) << map;
  }
  Write("model.safetensors.index.json", "[1]");
  EXPECT_THAT(Open(), FailsWith("INDEX_INVALID", HasSubstr("weight_map")));
  Write("model.safetensors.index.json", std::string(100000, '['));
  EXPECT_THAT(Open(), FailsWith("INDEX_INVALID", HasSubstr("deeper")));
}

TEST_F(CheckpointTest, ErrorsInAShardNameTheShard) {
  Write("s.safetensors", "short");
  WriteIndex(R"({"a":"s.safetensors"})");
  EXPECT_THAT(Open(), FailsWith("ST_HEADER_LENGTH", HasSubstr("s.safetensors")));
}

TensorView HalfTensor(DType dtype, const std::vector<uint16_t>& values, size_t misalign,
                      std::vector<uint8_t>* storage) {
  storage->assign(values.size() * 2 + misalign, 0);
  std::memcpy(storage->data() + misalign, values.data(), values.size() * 2);
  return {dtype,
          {static_cast<int64_t>(values.size())},
          absl::MakeConstSpan(*storage).subspan(misalign)};
}

// Every one of the 65,536 values of both 16-bit types, at an odd address.
TEST(WidenTest, EqualsTheScalarConversionForEveryHalf) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    std::vector<uint8_t> storage;
    const TensorView tensor = HalfTensor(dtype, all, 1, &storage);
    Matrix out(1, 65536);
    ASSERT_OK(WidenToFloat("t", tensor, false, out.view()));
    for (size_t i = 0; i < all.size(); ++i) {
      const float expected = dtype == DType::kF16 ? F16ToFloat(all[i]) : BF16ToFloat(all[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(out.data()[i]), std::bit_cast<uint32_t>(expected))
          << NameOf(dtype) << " " << i;
    }
  }
}

TEST(WidenTest, CountsNonFiniteValuesAndNamesTheFirst) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {1, 2, 3, 4, inf, 6, nan, -inf};
  TensorView tensor{DType::kF32,
                    {2, 4},
                    absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(values.data()), 32)};
  Matrix out(2, 4);
  EXPECT_THAT(WidenToFloat("w", tensor, true, out.view()),
              FailsWith("NON_FINITE_WEIGHTS",
                        HasSubstr("tensor w has 3 NaN or infinite of 8 values, the first at "
                                  "index 4")));
  EXPECT_OK(WidenToFloat("w", tensor, false, out.view()));
  EXPECT_EQ(out.data()[4], inf);
}

TEST(WidenTest, RefusesAnotherShapeOrType) {
  const std::vector<float> values(6, 1.0f);
  TensorView tensor{DType::kF32,
                    {2, 3},
                    absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(values.data()), 24)};
  Matrix out(3, 2);
  EXPECT_THAT(WidenToFloat("w", tensor, true, out.view()),
              FailsWith("CONFIG_MISMATCH", HasSubstr("[2, 3], [3, 2] is needed")));
  tensor.dtype = DType::kI32;
  Matrix right(2, 3);
  EXPECT_THAT(WidenToFloat("w", tensor, true, right.view()),
              FailsWith("DTYPE_UNSUPPORTED", HasSubstr("I32")));
}

TEST_F(CheckpointTest, WeightsComeByModuleAndByRows) {
  const SafetensorsLayout layout = LayOutSafetensors(
      {{"m.weight", DType::kF32, {3, 2}}, {"norm", DType::kF32, {2}}, {"q", DType::kI32, {1}}});
  const std::vector<float> data = {0, 1, 2, 3, 4, 5, 6, 7};
  std::string file = layout.header;
  file.append(reinterpret_cast<const char*>(data.data()), 32);
  file.append(4, '\0');
  Write("model.safetensors", file);
  LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Open());
  ASSERT_EQ(layout.tensors[0].name, "m.weight");
  const auto weights = MakeCheckpointWeights(checkpoint.get());
  Matrix linear(3, 2);
  ASSERT_OK(weights->ReadLinear("m", linear.view()));
  EXPECT_EQ(linear.Row(2)[1], 5.0f);
  Matrix rows(2, 2);
  ASSERT_OK(weights->ReadDense("m.weight", 1, rows.view()));
  EXPECT_EQ(rows.Row(0)[0], 2.0f);
  EXPECT_THAT(weights->ReadDense("m.weight", 2, rows.view()), FailsWith("CONFIG_MISMATCH", _));
  EXPECT_THAT(weights->ReadDense("m.weight", -1, rows.view()), FailsWith("CONFIG_MISMATCH", _));
  Matrix vector(1, 2);
  ASSERT_OK(weights->ReadDense("norm", 0, vector.view()));
  EXPECT_EQ(vector.Row(0)[1], 7.0f);
  EXPECT_THAT(weights->ReadLinear("absent", linear.view()), FailsWith("TENSOR_MISSING", _));
  EXPECT_TRUE(weights->HasDense("norm"));
}

}  // namespace
}  // namespace lwq
