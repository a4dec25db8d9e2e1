// AWQ on whole layers: what it chooses is no worse than plain rounding, and it does not depend on
// what is wanted. That what it moves changes nothing by itself is in scale_mover_test.cc.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/engine/quant/calibrated_model.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/quant/layer_quantizer.h"

namespace lwq::testing {
namespace {

// The source's weights, with those of one linear made smaller, and the most rows that were asked for
// at a time.
class WatchedWeights : public WeightSource {
 public:
  WatchedWeights(const WeightSource* source, std::string module, float factor)
      : source_(*source), tensor_(module + ".weight"), factor_(factor) {}
  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    return ReadDense(absl::StrCat(module, ".weight"), 0, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first, MatrixView out) const override {
    most_rows_ = std::max(most_rows_, out.rows);
    LWQ_RETURN_IF_ERROR(source_.ReadDense(tensor, first, out));
    if (tensor != tensor_) return absl::OkStatus();
    for (int64_t r = 0; r < out.rows; ++r) {
      for (int64_t c = 0; c < out.cols; ++c) out.Row(r)[c] *= factor_;
    }
    return absl::OkStatus();
  }
  bool HasDense(absl::string_view tensor) const override { return source_.HasDense(tensor); }
  int64_t most_rows() const { return most_rows_; }

 private:
  const WeightSource& source_;
  const std::string tensor_;
  const float factor_;
  mutable int64_t most_rows_ = 0;
};

const WeightFormat* Row(int bits) { return GridFormat::Find(bits, 0, true); }

// A model with strong outlier channels, which is what AWQ is for.
class AwqTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    scratch_ = std::make_unique<TempDirectory>(std::move(scratch));
    TinyModelOptions options;
    options.dtype = DType::kBF16;
    options.outlier_exponent = 4;
    const std::string directory = JoinPath(scratch_->path(), "model");
    ASSERT_OK(WriteTinyModel(options, directory));
    LWQ_ASSERT_OK_AND_ASSIGN(model_, Calibrate(directory));
  }

  // Squared error of the outputs of a layer's linears, in double, of what is stored with the scales
  // taken out again.
  absl::StatusOr<double> OutputError(const LayerResult& result, int layer) {
    const LayerSpec& spec = model_.spec.layers[static_cast<size_t>(layer)];
    double sum = 0;
    for (const auto& unit : result.encoded) {
      for (const EncodedModule& encoded : unit[0]) {
        const LinearSpec& linear = spec.linears[*spec.FindLinear(encoded.module)];
        StoredLinear stored{Row(3), linear.shape.out_features, linear.shape.in_features, {}};
        for (const EncodedPart& part : encoded.linear) {
          stored.parts.push_back(
              {part.spec.dtype, part.spec.shape,
               absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(part.bytes.data()),
                                   part.bytes.size())});
        }
        Matrix error(stored.out_features, stored.in_features), weight(error.rows(), error.cols());
        LWQ_RETURN_IF_ERROR(DequantizeLinear(encoded.module, stored, error.view()));
        LWQ_RETURN_IF_ERROR(model_.weights->ReadLinear(encoded.module, weight.view()));
        const auto scales = result.edits.linears.find(encoded.module);
        if (scales != result.edits.linears.end()) {
          LinearScales inverse = scales->second;
          for (float& s : inverse.rows) s = 1 / s;
          for (float& s : inverse.columns) s = 1 / s;
          LWQ_RETURN_IF_ERROR(ScaleRows(inverse, 0, error.view()));
        }
        for (int64_t i = 0; i < error.size(); ++i) error.data()[i] -= weight.data()[i];
        LWQ_ASSIGN_OR_RETURN(
            const Matrix h, model_.evidence[static_cast<size_t>(layer)]->Table(
                                "second-moments", spec.inputs[linear.input], error.cols()));
        for (int64_t r = 0; r < error.rows(); ++r) {
          for (int64_t i = 0; i < error.cols(); ++i) {
            for (int64_t j = 0; j <= i; ++j) {
              sum += (i == j ? 1.0 : 2.0) * error.Row(r)[i] * double{h.Row(i)[j]} * error.Row(r)[j];
            }
          }
        }
      }
    }
    return sum;
  }

  std::unique_ptr<TempDirectory> scratch_;
  CalibratedModel model_;
};

TEST_F(AwqTest, LeavesLessErrorThanRoundingToNearestAndGptqAfterItLessStill) {
  for (int layer = 0; layer < model_.spec.num_layers(); ++layer) {
    std::map<std::string, double> error;
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult rtn, Quantize(model_, "rtn", layer, Row(3)));
    LWQ_ASSERT_OK_AND_ASSIGN(error["rtn"], OutputError(rtn, layer));
    for (const char* rounding : {"nearest", "gptq"}) {
      LWQ_ASSERT_OK_AND_ASSIGN(
          const LayerResult awq,
          Quantize(model_, "awq", layer, Row(3), {{"rounding", rounding}}));
      LWQ_ASSERT_OK_AND_ASSIGN(error[rounding], OutputError(awq, layer));
      EXPECT_EQ(awq.linears[0].record.method, "awq");
    }
    EXPECT_LT(error["nearest"], 0.8 * error["rtn"]) << "layer " << layer;
    EXPECT_LT(error["gptq"], error["nearest"]) << "layer " << layer;
  }
}

// One set of edits serves every plan: neither the formats nor the units that are asked for change it.
TEST_F(AwqTest, EditsDoNotDependOnWhatIsWanted) {
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult all, Quantize(model_, "awq", 1, Row(4)));
  ASSERT_FALSE(all.edits.tensors.empty());
  ASSERT_EQ(all.linears.size(), 7u);
  for (const char* only : {"down", "qkv", "none of them"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult some,
                             Quantize(model_, "awq", 1, Row(2), {{"rounding", "gptq"}}, only));
    EXPECT_EQ(some.edits.tensors, all.edits.tensors) << only;
    ASSERT_EQ(some.edits.linears.size(), all.edits.linears.size());
    for (const auto& [module, scales] : all.edits.linears) {
      EXPECT_EQ(some.edits.linears.at(module).rows, scales.rows) << module;
      EXPECT_EQ(some.edits.linears.at(module).columns, scales.columns) << module;
    }
  }
}

// What a norm becomes has to be what its dtype holds: the artifact stores it.
TEST_F(AwqTest, EditedTensorsAreValuesOfTheirDtype) {
  LWQ_ASSERT_OK_AND_ASSIGN(LayerResult result, Quantize(model_, "awq", 0, Row(4)));
  ASSERT_FALSE(result.edits.tensors.empty());
  for (auto& [name, values] : result.edits.tensors) {
    std::vector<float> rounded = values;
    const int64_t size = static_cast<int64_t>(values.size());
    ASSERT_OK(RoundTo(DType::kBF16, name, MatrixView{rounded.data(), 1, size, size}));
    EXPECT_EQ(rounded, values) << name;
  }
}

// A row that a large scale divides keeps weights that eight bits have steps for.
TEST_F(AwqTest, NoRowIsDividedBelowWhatItsFinestGridHolds) {
  constexpr float kLeast = 127 * 0x1p-14f;
  const std::string up = "model.layers.1.mlp.up_proj";
  const LayerSpec& spec = model_.spec.layers[1];
  const LinearShape& shape = spec.linears[*spec.FindLinear(up)].shape;
  int64_t num_divided = 0;
  for (const float factor : {1.0f, 1.0f / 16, 1.0f / 64}) {
    const WatchedWeights weights(model_.weights.get(), up, factor);
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult result,
                             Quantize(model_, "awq", 1, Row(8), {}, "", &weights));
    if (result.edits.linears.count(up) == 0) continue;  // what is left of the scales gains nothing
    const std::vector<float>& scales = result.edits.linears.at(up).rows;
    ASSERT_EQ(static_cast<int64_t>(scales.size()), shape.out_features);
    Matrix rows(shape.out_features, shape.in_features);
    ASSERT_OK(weights.ReadLinear(up, rows.view()));
    for (int64_t r = 0; r < rows.rows(); ++r) {
      const auto [low, high] = std::minmax_element(rows.Row(r), rows.Row(r) + rows.cols());
      const float largest = std::max(-*low, *high), scale = scales[static_cast<size_t>(r)];
      num_divided += scale < 1;
      // The scale was rounded once, its inverse once.
      const float least = scale < 1 ? kLeast * (1 - 1e-6f) : 0;
      EXPECT_GE(largest * scale, least) << "row " << r;
    }
  }
  EXPECT_GT(num_divided, 0) << "the case shows nothing";
}

// What a head or any other linear takes does not grow with its rows.
TEST_F(AwqTest, LinearsAreReadAndRoundedInTiles) {
  constexpr int64_t kTile = 32;
  for (const char* rounding : {"nearest", "gptq"}) {
    const OptionTexts options = {{"rounding", rounding}};
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult whole, Quantize(model_, "awq", 0, Row(4), options));
    const WatchedWeights weights(model_.weights.get(), "none", 1);
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult tiled,
                             Quantize(model_, "awq", 0, Row(4), options, "", &weights, 1));
    // A search for scales reads a few hundred rows of each reader, one by one, and of a source as many.
    EXPECT_LE(weights.most_rows(), 256);
    EXPECT_EQ(tiled.linears.size(), whole.linears.size());
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const QuantizerDef* def, FindQuantizer("awq"));
  const WatchedWeights weights(model_.weights.get(), "none", 1);
  LayerRequest request;
  request.device = model_.device.get();
  request.layer = &model_.spec.layers[0];
  request.in_layer = false;
  request.model = &model_.inventory;
  request.weights = &weights;
  request.tile_weights = 1;
  request.evidence = model_.evidence[0].get();
  request.options = OptionValues(def->options);
  request.progress = [](double, const std::string&) { return absl::OkStatus(); };
  request.units.push_back({model_.inventory.units[0], {Row(4)}});
  ASSERT_OK(QuantizeLayer(*def, request).status());
  EXPECT_EQ(weights.most_rows(), kTile);
}

// The head has no edge into a layer: it is rounded, and nothing is edited.
TEST_F(AwqTest, OutsideTheLayersNothingIsEdited) {
  LWQ_ASSERT_OK_AND_ASSIGN(const QuantizerDef* def, FindQuantizer("awq"));
  LayerRequest request;
  request.device = model_.device.get();
  request.layer = &model_.spec.layers[0];
  request.in_layer = false;
  request.model = &model_.inventory;
  request.weights = model_.weights.get();
  request.evidence = model_.evidence[0].get();
  request.options = OptionValues(def->options);
  request.progress = [](double, const std::string&) { return absl::OkStatus(); };
  request.units.push_back({model_.inventory.units[0], {Row(4)}});
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult result, QuantizeLayer(*def, request));
  EXPECT_TRUE(result.edits.empty());
  EXPECT_EQ(result.encoded[0][0].size(), model_.inventory.units[0].linears.size());
}

}  // namespace
}  // namespace lwq::testing
