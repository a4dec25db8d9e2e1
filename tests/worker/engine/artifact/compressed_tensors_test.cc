#include "worker/engine/artifact/compressed_tensors.h"

#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

using ::testing::_;
using testing::CodesOf;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::QuantizeSimply;
using testing::RandomWeight;
using testing::SpecOf;

struct Tensor {
  TensorSpec spec;
  std::string bytes;
};

// The tensors of a stored linear "m" [32, 64], to be damaged and read back.
class Tensors {
 public:
  Tensors() {
    const Matrix weight = RandomWeight(32, 64, 5);
    const GridFormat& format = *GridFormat::Find(4, 32, false);
    EncodedLinear encoded =
        format.Encode("m", CodesOf(QuantizeSimply(weight.view(), SpecOf(format))), DType::kF16)
            .value();
    const char* const names[] = {"m.weight_packed", "m.weight_scale", "m.weight_zero_point"};
    for (size_t i = 0; i < encoded.size(); ++i) {
      tensors_[names[i]] = {{names[i], encoded[i].spec.dtype, encoded[i].spec.shape},
                            std::move(encoded[i].bytes)};
    }
    tensors_["m.weight_shape"] = {{"m.weight_shape", DType::kI64, {2}}, WeightShapeBytes(32, 64)};
  }
  Tensor& operator[](const std::string& name) { return tensors_[name]; }
  void Erase(const std::string& name) { tensors_.erase(name); }
  absl::StatusOr<StoredLinear> Find() const {
    const auto lookup = [this](absl::string_view name) -> absl::StatusOr<TensorView> {
      const auto found = tensors_.find(std::string(name));
      if (found == tensors_.end()) {
        return Failure(absl::StatusCode::kNotFound, "TENSOR_MISSING", name);
      }
      const std::string& bytes = found->second.bytes;
      return TensorView{found->second.spec.dtype,
                        found->second.spec.shape,
                        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}};
    };
    LWQ_ASSIGN_OR_RETURN(const FoundLinear found,
                         CompressedTensorsCoding().Find("m", lookup, {declared}));
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned, CompressedTensorsCoding().Read("m", found));
    return owned.linear;  // borrows the tensors alone
  }
  const WeightFormat* declared = GridFormat::Find(4, 32, false);

 private:
  std::map<std::string, Tensor> tensors_;
};

class DamagedLinearTest : public ::testing::Test {
 protected:
  void SetShape(int64_t rows, int64_t cols) {
    const int64_t shape[2] = {rows, cols};
    std::memcpy(tensors_["m.weight_shape"].bytes.data(), shape, sizeof(shape));
  }
  Tensors tensors_;
};

TEST_F(DamagedLinearTest, TheFormatIsFoundFromTheShapes) {
  LWQ_ASSERT_OK_AND_ASSIGN(const StoredLinear stored, tensors_.Find());
  EXPECT_EQ(stored.format, GridFormat::Find(4, 32, false));
  EXPECT_EQ(stored.out_features, 32);
  EXPECT_EQ(stored.in_features, 64);
  for (const WeightFormat* other : {GridFormat::Find(4, 64, false), GridFormat::Find(4, 32, true),
                                    GridFormat::Find(2, 32, false)}) {
    tensors_.declared = other;
    EXPECT_THAT(tensors_.Find(), FailsWith("CONFIG_MISMATCH", HasSubstr("m is stored 4-bit")));
  }
}

TEST_F(DamagedLinearTest, ShapesThatDisagreeAreRefused) {
  ASSERT_OK(tensors_.Find());
  const std::pair<int64_t, int64_t> bad_shapes[] = {{33, 64},     {32, 63}, {32, -64},
                                                    {32, 0},      {32, 96}, {32, int64_t{1} << 62},
                                                    {32, 32 * 7}, {-1, 64}};
  for (const auto& [rows, cols] : bad_shapes) {
    SetShape(rows, cols);
    EXPECT_THAT(tensors_.Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_packed")))
        << rows << " " << cols;
  }
}

TEST_F(DamagedLinearTest, ScalesAndZerosMustMatchTheCodes) {
  tensors_["m.weight_scale"].spec.shape = {16, 4};
  EXPECT_THAT(tensors_.Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_scale")));
  tensors_["m.weight_scale"].spec.shape = {32, 2};
  tensors_["m.weight_zero_point"].spec.shape = {2, 4};
  EXPECT_THAT(tensors_.Find(), FailsWith("PACKED_SHAPE", HasSubstr("m.weight_zero_point")));
  tensors_.Erase("m.weight_scale");
  EXPECT_THAT(tensors_.Find(), FailsWith("TENSOR_MISSING", HasSubstr("weight_scale")));
}

TEST_F(DamagedLinearTest, StoredOrderIsNotRead) {
  tensors_["m.weight_g_idx"] = {{"m.weight_g_idx", DType::kI32, {0}}, ""};
  EXPECT_THAT(tensors_.Find(), FailsWith("QUANT_FORMAT_UNSUPPORTED", HasSubstr("g_idx")));
}

TEST_F(DamagedLinearTest, AScaleThatIsNotFiniteIsRefused) {
  tensors_["m.weight_scale"].bytes.replace(2, 2, "\xff\x7f");  // NaN at index 1
  LWQ_ASSERT_OK_AND_ASSIGN(StoredLinear stored, tensors_.Find());
  EXPECT_THAT(stored.format->grid()->Decode("m", stored),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("first at index 1")));
  Matrix out(32, 64);
  EXPECT_THAT(DequantizeLinear("m", stored, out.view()), FailsWith("NON_FINITE_WEIGHTS", _));
}

}  // namespace
}  // namespace lwq
