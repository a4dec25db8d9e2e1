// Swap KL against its definition: the whole model run anew with one unit's weights exchanged.
#include "worker/engine/score/swap_kl.h"

#include <cmath>

#include "tests/testing/shared_data.h"
#include "tests/testing/test_devices.h"
#include "tests/testing/whole_logits.h"
#include "worker/engine/io/checkpoint.h"

namespace lwq {
namespace {

constexpr int kFormats = 2;

// Rounds to a grid that is coarser the lower the format.
void Coarsen(int format, MatrixView weight) {
  const float step = format == 0 ? 0.5f : 0.125f;
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.cols; ++c) {
      weight.Row(r)[c] = step * std::round(weight.Row(r)[c] / step);
    }
  }
}

// A checkpoint with one unit's linears coarsened.
class Swapped : public WeightSource {
 public:
  Swapped(const WeightSource* clean, const AllocationUnit& unit, int format, ActivationRule rule)
      : clean_(clean), unit_(unit), format_(format), rule_(rule) {}
  ActivationRule RuleOf(absl::string_view module) const override {
    for (const LinearShape& linear : unit_.linears) {
      if (linear.module == module) return rule_;
    }
    return ActivationRule::kNone;
  }
  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    LWQ_RETURN_IF_ERROR(clean_->ReadLinear(module, out));
    for (const LinearShape& linear : unit_.linears) {
      if (linear.module == module) Coarsen(format_, out);
    }
    return absl::OkStatus();
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t row, MatrixView out) const override {
    LWQ_RETURN_IF_ERROR(clean_->ReadDense(tensor, row, out));
    for (const LinearShape& linear : unit_.linears) {
      if (linear.module + ".weight" == tensor) Coarsen(format_, out);
    }
    return absl::OkStatus();
  }
  bool HasDense(absl::string_view tensor) const override { return clean_->HasDense(tensor); }

 private:
  const WeightSource* clean_;
  const AllocationUnit& unit_;
  int format_;
  ActivationRule rule_;
};

class SwapKlTest : public ::testing::Test {
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
    for (int length : {17, 23, 9}) {
      std::vector<int32_t> sequence;
      for (int i = 0; i < length; ++i) sequence.push_back((i * 31 + length) % 96);
      batch_.Add(sequence);
    }
    const int64_t tokens = batch_.num_tokens();
    for (int i = 0; i <= spec_.num_layers(); ++i) states_.emplace_back(tokens, spec_.hidden_size);
    ASSERT_OK(decoder_->Embed(batch_.tokens, states_[0].view()));
    for (int layer = 0; layer < spec_.num_layers(); ++layer) {
      const size_t i = static_cast<size_t>(layer);
      std::copy_n(states_[i].data(), states_[i].size(), states_[i + 1].data());
      LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights weights, decoder_->LoadLayer(layer));
      ASSERT_OK(decoder_->RunLayer(weights, batch_, states_[i + 1].view()));
    }
  }

  UnitCostRequest Request(Place place) {
    UnitCostRequest request;
    request.source = decoder_.get();
    request.place = place;
    for (const AllocationUnit& unit : inventory_.units) {
      if (unit.place == place) request.units.push_back(unit);
    }
    request.num_formats.assign(request.units.size(), kFormats);
    request.replacement = [this](size_t, const LinearShape& linear, int format, int64_t first,
                                 DeviceView<float> weight) -> absl::Status {
      Matrix host(weight.rows, weight.cols);
      LWQ_RETURN_IF_ERROR(weights_->ReadDense(linear.module + ".weight", first, host.view()));
      Coarsen(format, host.view());
      return device_->Upload(host.view(), weight);
    };
    request.batch = &batch_;
    request.layer_input = states_[static_cast<size_t>(place.layer)].view();
    request.source_output = states_.back().view();
    return request;
  }

  // Softmax and divergence by their definitions from the logits of the whole swapped model.
  absl::StatusOr<double> ByDefinition(const AllocationUnit& unit, int format,
                                      ActivationRule rule = ActivationRule::kNone) {
    const Swapped swapped(weights_.get(), unit, format, rule);
    LWQ_ASSIGN_OR_RETURN(auto decoder,
                         Decoder::Create(spec_, &swapped, device_.get(), ComputeType::kF32));
    LWQ_ASSIGN_OR_RETURN(const Matrix p, LogProbabilities(*decoder_));
    LWQ_ASSIGN_OR_RETURN(const Matrix q, LogProbabilities(*decoder));
    double sum = 0;
    for (int64_t i = 0; i < p.size(); ++i) {
      sum += std::exp(double{p.data()[i]}) * (double{p.data()[i]} - q.data()[i]);
    }
    return sum / static_cast<double>(p.rows());
  }

  absl::StatusOr<Matrix> LogProbabilities(const Decoder& decoder) {
    Matrix hidden(batch_.num_tokens(), spec_.hidden_size);
    LWQ_RETURN_IF_ERROR(RunAllLayers(decoder, batch_, hidden.view()));
    LWQ_ASSIGN_OR_RETURN(Matrix logits, testing::WholeLogits(decoder, hidden.view()));
    for (int64_t r = 0; r < logits.rows(); ++r) {
      double sum = 0;
      for (int64_t v = 0; v < logits.cols(); ++v) sum += std::exp(double{logits.Row(r)[v]});
      for (int64_t v = 0; v < logits.cols(); ++v) {
        logits.Row(r)[v] = static_cast<float>(logits.Row(r)[v] - std::log(sum));
      }
    }
    return logits;
  }

  std::unique_ptr<Device> device_;
  DecoderSpec spec_;
  std::unique_ptr<Checkpoint> checkpoint_;
  ModelInventory inventory_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<Decoder> decoder_;
  TokenBatch batch_;
  std::vector<Matrix> states_;
};

// Log-probabilities below 20 carry errors of some 1e-5 after two layers; their mean over 49 tokens
// enters the divergence weighted by the probabilities.
constexpr double kTolerance = 2e-5;

TEST_F(SwapKlTest, EqualsTheWholeModelRunWithOneUnitExchanged) {
  for (const Place place : {Place::Layer(0), Place::Layer(1), Place::Head()}) {
    const UnitCostRequest request = Request(place);
    ASSERT_EQ(request.units.size(), place.in_layer() ? 4 : 1);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto costs, SwapKl(request));
    for (size_t u = 0; u < request.units.size(); ++u) {
      for (int f = 0; f < kFormats; ++f) {
        LWQ_ASSERT_OK_AND_ASSIGN(const double expected, ByDefinition(request.units[u], f));
        EXPECT_NEAR(costs[u][static_cast<size_t>(f)], expected, kTolerance)
            << request.units[u].name << " at format " << f;
        EXPECT_GT(expected, 10 * kTolerance);  // or the comparison would say nothing
      }
      EXPECT_GT(costs[u][0], costs[u][1]) << "the coarser grid must cost more";
    }
  }
}

TEST_F(SwapKlTest, InputsAreRoundedByTheRuleOfTheFormat) {
  UnitCostRequest request = Request(Place::Layer(0));
  const std::vector<ActivationRule> rules = {ActivationRule::kNone, ActivationRule::kFp8PerToken};
  request.rules.assign(request.units.size(), rules);
  LWQ_ASSERT_OK_AND_ASSIGN(const UnitCosts costs, SwapKl(request));
  for (size_t u = 0; u < request.units.size(); ++u) {
    for (int f = 0; f < kFormats; ++f) {
      LWQ_ASSERT_OK_AND_ASSIGN(const double expected,
                               ByDefinition(request.units[u], f, rules[static_cast<size_t>(f)]));
      EXPECT_NEAR(costs[u][static_cast<size_t>(f)], expected, kTolerance);
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const double unrounded, ByDefinition(request.units[u], 1));
    EXPECT_GT(std::abs(costs[u][1] - unrounded), 3 * kTolerance) << "the case shows nothing";
  }
}

TEST_F(SwapKlTest, CutIntoChunksOfWholeSequencesGivesTheSame) {
  UnitCostRequest request = Request(Place::Layer(0));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto whole, SwapKl(request));
  request.max_state_bytes = 1;
  std::vector<double> done;
  request.progress = [&](double share) {
    done.push_back(share);
    return absl::OkStatus();
  };
  LWQ_ASSERT_OK_AND_ASSIGN(const auto cut, SwapKl(request));
  for (size_t u = 0; u < whole.size(); ++u) {
    for (size_t f = 0; f < whole[u].size(); ++f) {
      EXPECT_NEAR(cut[u][f], whole[u][f], kTolerance);
    }
  }
  EXPECT_GT(done.size(), 6u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_LT(done.back(), 1.0);
}

TEST_F(SwapKlTest, StopsWhenProgressSaysSo) {
  UnitCostRequest request = Request(Place::Layer(0));
  request.progress = [](double) { return absl::CancelledError("enough"); };
  EXPECT_EQ(SwapKl(request).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(SwapKlTest, UnitsOfAnotherLayerAreRefused) {
  UnitCostRequest request = Request(Place::Layer(0));
  request.place = Place::Layer(1);
  EXPECT_THAT(SwapKl(request),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("model.layers.0.self_attn.q_proj")));
}

}  // namespace
}  // namespace lwq
