// Scorers that give costs from errors, against their definitions: outputs on the text itself, token
// by token in double, where the scorer goes by second moments.
#include "worker/engine/score/unit_costs.h"

#include <cmath>
#include <map>

#include "tests/testing/collected_evidence.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

using testing::CollectedEvidence;

constexpr int kLayer = 1;
constexpr int kFormats = 2;

class UnitCostsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 2}));
    LWQ_ASSERT_OK_AND_ASSIGN(spec_, ReadDecoderSpec(model));
    LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(model));
    LWQ_ASSERT_OK_AND_ASSIGN(inventory_, TakeInventory(spec_, *checkpoint_));
    weights_ = MakeCheckpointWeights(checkpoint_.get());
    LWQ_ASSERT_OK_AND_ASSIGN(
        decoder_, Decoder::Create(spec_, weights_.get(), device_.get(), ComputeType::kF32));
    evidence_ = std::make_unique<CollectedEvidence>(device_.get());
    ASSERT_OK(Collect());
    request_.source = decoder_.get();
    request_.weights = weights_.get();
    request_.evidence = evidence_.get();
    request_.place = Place::Layer(kLayer);
    for (const AllocationUnit& unit : inventory_.units) {
      if (unit.place == request_.place) request_.units.push_back(unit);
    }
    request_.num_formats.assign(request_.units.size(), kFormats);
    request_.num_formats.back() = 1;  // menus differ from unit to unit
    request_.replacement = [this](size_t, const LinearShape& linear, int format, int64_t first,
                                  DeviceView<float> out) -> absl::Status {
      LWQ_ASSIGN_OR_RETURN(const Matrix rounded, Rounded(linear, format));
      return device_->Upload(rounded.view().Rows(first, out.rows), out);
    };
  }

  // The linear on a grid that is coarser the lower the format.
  absl::StatusOr<Matrix> Rounded(const LinearShape& linear, int format) {
    Matrix out(linear.out_features, linear.in_features);
    LWQ_RETURN_IF_ERROR(weights_->ReadLinear(linear.module, out.view()));
    const float step = format == 0 ? 0.5f : 0.125f;
    for (int64_t i = 0; i < out.size(); ++i) {
      out.data()[i] = step * std::round(out.data()[i] / step);
    }
    return out;
  }

  // Runs some text through the layers; keeps what the layer's linears read, and the evidence.
  absl::Status Collect() {
    TokenBatch batch;
    for (int i = 0; i < 3; ++i) batch.Add({1, 5 + i, 40, 7, 90 - i, 33, 2 * i});
    Matrix hidden(batch.num_tokens(), spec_.hidden_size);
    LWQ_RETURN_IF_ERROR(decoder_->Embed(batch.tokens, hidden.view()));
    LWQ_ASSIGN_OR_RETURN(Collection collection,
                         Collection::Find({"channel-statistics", "second-moments"}));
    for (int layer = 0; layer <= kLayer; ++layer) {
      const LayerSpec& layer_spec = spec_.layers[static_cast<size_t>(layer)];
      LWQ_RETURN_IF_ERROR(collection.Begin({device_.get(), ComputeType::kF32, layer_spec.inputs}));
      LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder_->LoadLayer(layer));
      LWQ_RETURN_IF_ERROR(
          decoder_->RunLayer(weights, batch, hidden.view(),
                             [&](size_t input, DeviceView<const float> x) -> absl::Status {
                               Matrix& kept = read_[input] = Matrix(x.rows, x.cols);
                               LWQ_RETURN_IF_ERROR(device_->Download(x, kept.view()));
                               return collection.ObserveInput(input, x);
                             }));
      LWQ_RETURN_IF_ERROR(collection.Finish(*evidence_));
    }
    return absl::OkStatus();
  }

  // The costs by definition: sum over linears of f(W, Q(W), X), numerator and denominator.
  template <typename Terms>
  void Expect(absl::string_view scorer, Terms terms) {
    LWQ_ASSERT_OK_AND_ASSIGN(const ScorerDef* def, FindScorer(scorer));
    ASSERT_TRUE(def->gives_costs());
    LWQ_ASSERT_OK_AND_ASSIGN(const UnitCosts costs, def->unit_costs(request_));
    ASSERT_EQ(costs.size(), request_.units.size());
    const LayerSpec& layer = spec_.at(request_.place);
    for (size_t u = 0; u < costs.size(); ++u) {
      ASSERT_EQ(static_cast<int>(costs[u].size()), request_.num_formats[u]);
      for (size_t f = 0; f < costs[u].size(); ++f) {
        double of = 0, by = 0;
        for (const LinearShape& linear : request_.units[u].linears) {
          Matrix w(linear.out_features, linear.in_features);
          ASSERT_OK(weights_->ReadLinear(linear.module, w.view()));
          LWQ_ASSERT_OK_AND_ASSIGN(const Matrix q, Rounded(linear, static_cast<int>(f)));
          const size_t input = layer.linears[*layer.FindLinear(linear.module)].input;
          terms(w, q, read_.at(input), of, by);
        }
        // F32 products and sums of some thousand terms: 1e-4 is ten times their rounding.
        EXPECT_NEAR(costs[u][f] / (of / by), 1, 1e-4) << scorer << " " << request_.units[u].name;
      }
      if (costs[u].size() > 1) {
        EXPECT_GT(costs[u][0], costs[u][1]) << "the coarser grid costs more";
      }
    }
  }

  std::unique_ptr<Device> device_;
  DecoderSpec spec_;
  std::unique_ptr<Checkpoint> checkpoint_;
  ModelInventory inventory_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<CollectedEvidence> evidence_;
  std::map<size_t, Matrix> read_;  // by input: what the layer's linears read
  UnitCostRequest request_;
};

TEST_F(UnitCostsTest, WeightErrorIsRelativeToTheUnitsWeights) {
  Expect("weight-error",
         [](const Matrix& w, const Matrix& q, const Matrix&, double& of, double& by) {
           for (int64_t i = 0; i < w.size(); ++i) {
             of += std::pow(double{q.data()[i]} - w.data()[i], 2);
             by += std::pow(double{w.data()[i]}, 2);
           }
         });
}

TEST_F(UnitCostsTest, ActivationErrorIsThatOfTheOutputsOnTheText) {
  Expect("activation-error",
         [](const Matrix& w, const Matrix& q, const Matrix& x, double& of, double& by) {
           for (int64_t t = 0; t < x.rows(); ++t) {
             for (int64_t n = 0; n < w.rows(); ++n) {
               double clean = 0, error = 0;
               for (int64_t k = 0; k < w.cols(); ++k) {
                 clean += double{x.Row(t)[k]} * w.Row(n)[k];
                 error += double{x.Row(t)[k]} * (double{q.Row(n)[k]} - w.Row(n)[k]);
               }
               of += error * error;
               by += clean * clean;
             }
           }
         });
}

TEST_F(UnitCostsTest, HessianIsTheMeanSquareOfTheInputsTimesTheSquaredError) {
  Expect("hessian", [](const Matrix& w, const Matrix& q, const Matrix& x, double& of, double& by) {
    double trace = 0, error = 0;
    for (int64_t i = 0; i < x.size(); ++i) trace += std::pow(double{x.data()[i]}, 2);
    for (int64_t i = 0; i < w.size(); ++i) error += std::pow(double{q.data()[i]} - w.data()[i], 2);
    of += trace / static_cast<double>(x.size()) * error;
    by = 1;
  });
}

TEST_F(UnitCostsTest, WhatIsMissingOrOfAnotherLayerIsRefused) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ScorerDef* def, FindScorer("activation-error"));
  const CollectedEvidence none(device_.get());
  UnitCostRequest request = request_;
  request.evidence = &none;
  EXPECT_EQ(def->unit_costs(request).status().code(), absl::StatusCode::kNotFound);
  request = request_;
  request.place = Place::Layer(0);
  EXPECT_THAT(def->unit_costs(request),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("model.layers.1.self_attn.q_proj")));
  request = request_;
  request.progress = [](double) { return absl::CancelledError("enough"); };
  EXPECT_EQ(def->unit_costs(request).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace lwq
