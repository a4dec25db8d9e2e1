// SmoothQuant on whole models: linears whose inputs are rounded too lose less by it where channels
// are of very different sizes. That what it moves changes nothing by itself is in
// scale_mover_test.cc.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/engine/quant/calibrated_model.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/format/grid.h"

namespace lwq::testing {
namespace {

// A model with channels that are far larger than the others.
class SmoothQuantTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    scratch_ = std::make_unique<TempDirectory>(std::move(scratch));
    TinyModelOptions options;
    options.dtype = DType::kBF16;
    options.outlier_exponent = 6;
    const std::string directory = JoinPath(scratch_->path(), "model");
    ASSERT_OK(WriteTinyModel(options, directory));
    LWQ_ASSERT_OK_AND_ASSIGN(model_, Calibrate(directory));
  }

  // Squared error of the logits of the model by `method` in `format`, edits and all.
  absl::StatusOr<double> LogitError(const char* method, const WeightFormat* format) {
    LayerEdits edits;
    std::vector<LayerResult> results;
    absl::flat_hash_map<std::string, StoredLinear> stored;
    for (int layer = 0; layer < model_.spec.num_layers(); ++layer) {
      LWQ_ASSIGN_OR_RETURN(LayerResult result, Quantize(model_, method, layer, format));
      edits.Add(std::move(result.edits));
      results.push_back(std::move(result));
    }
    for (const LayerResult& result : results) {
      for (const auto& unit : result.encoded) {
        for (const EncodedModule& module : unit[0]) {
          const auto [layer, slot] = Where(module.module);
          const LinearShape& shape = model_.spec.layers[layer].linears[slot].shape;
          StoredLinear linear{format, shape.out_features, shape.in_features, {}};
          for (const EncodedPart& part : module.linear) {
            const auto* bytes = reinterpret_cast<const uint8_t*>(part.bytes.data());
            linear.parts.push_back({part.spec.dtype, part.spec.shape, {bytes, part.bytes.size()}});
          }
          stored.emplace(module.module, std::move(linear));
        }
      }
    }
    const auto edited = MakeEditedWeights(model_.weights.get(), &edits, DType::kBF16);
    const auto weights = MakeOverlayWeights(edited.get(), std::move(stored));
    LWQ_ASSIGN_OR_RETURN(const Matrix of_source, Logits(model_, *model_.weights));
    LWQ_ASSIGN_OR_RETURN(const Matrix found, Logits(model_, *weights));
    double sum = 0;
    for (int64_t i = 0; i < found.size(); ++i) {
      const double error = double{found.data()[i]} - of_source.data()[i];
      sum += error * error;
    }
    return sum;
  }

  std::pair<size_t, size_t> Where(const std::string& module) const {
    for (size_t layer = 0; layer < model_.spec.layers.size(); ++layer) {
      const auto slot = model_.spec.layers[layer].FindLinear(module);
      if (slot.has_value()) return {layer, *slot};
    }
    return {0, 0};
  }

  std::unique_ptr<TempDirectory> scratch_;
  CalibratedModel model_;
};

// Rounding inputs costs far more than rounding weights to 8 bits here; smoothing takes most of it
// away again.
TEST_F(SmoothQuantTest, TakesMostOfTheErrorOfRoundedInputsAway) {
  LWQ_ASSERT_OK_AND_ASSIGN(const double weights_alone,
                           LogitError("rtn", GridFormat::Find(8, 0, true)));
  LWQ_ASSERT_OK_AND_ASSIGN(const double rounded,
                           LogitError("rtn", GridFormat::WithRoundedInputs()));
  LWQ_ASSERT_OK_AND_ASSIGN(const double smoothed,
                           LogitError("smoothquant", GridFormat::WithRoundedInputs()));
  EXPECT_GT(rounded, 2 * weights_alone) << "nothing to smooth: the case shows nothing";
  EXPECT_LT(smoothed, rounded / 2);
}

TEST_F(SmoothQuantTest, EditsDoNotDependOnWhatIsWantedAndAreSaid) {
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerResult all,
                           Quantize(model_, "smoothquant", 0, GridFormat::WithRoundedInputs()));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const LayerResult one,
      Quantize(model_, "smoothquant", 0, GridFormat::Find(4, 32, true), {}, "down_proj"));
  EXPECT_EQ(all.edits.tensors, one.edits.tensors);
  ASSERT_FALSE(all.linears.empty());
  EXPECT_EQ(all.linears[0].record.method, "smoothquant");
  EXPECT_THAT(all.linears[0].record.note, ::testing::HasSubstr("smoothed with alpha"));
}

}  // namespace
}  // namespace lwq::testing
