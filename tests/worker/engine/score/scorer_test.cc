#include "worker/engine/score/scorer.h"

#include <cmath>
#include <functional>
#include <random>

#include "tests/testing/collected_evidence.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/llama_config.h"
#include "worker/engine/score/zd.h"

namespace lwq {
namespace {

// A model of one layer whose weights are drawn by a function.
class DrawnWeights : public WeightSource {
 public:
  explicit DrawnWeights(std::function<double(std::mt19937_64&)> draw) : draw_(std::move(draw)) {}
  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    uint64_t seed = 0;
    for (char c : module) seed = seed * 131 + static_cast<unsigned char>(c);
    std::mt19937_64 generator(seed);
    for (int64_t i = 0; i < out.rows * out.cols; ++i) {
      out.data[i] = static_cast<float>(draw_(generator));
    }
    return absl::OkStatus();
  }
  absl::Status ReadDense(absl::string_view, int64_t, MatrixView) const override {
    return absl::NotFoundError("no dense tensors");
  }
  bool HasDense(absl::string_view) const override { return false; }

 private:
  std::function<double(std::mt19937_64&)> draw_;
};

DecoderSpec Spec() {
  LlamaShapedConfig config;
  config.attention.resize(1);
  config.spec.hidden_size = 256;
  config.spec.intermediate_size = 512;
  config.spec.num_heads = config.spec.num_kv_heads = 4;
  config.spec.head_dim = 64;
  return MakeLlamaShaped(config);
}

double Uniform(std::mt19937_64& g) { return static_cast<double>(g() >> 11) * 0x1p-53; }
double Gauss(std::mt19937_64& g) {
  return std::sqrt(-2 * std::log(1 - Uniform(g))) * std::cos(6.283185307179586 * Uniform(g));
}

double Zd(std::function<double(std::mt19937_64&)> draw) {
  return ShareAboveOneSigma(Spec(), DrawnWeights(std::move(draw)), 0).value();
}

// 655,360 weights: the share's standard error is sqrt(.16 * .84 / 655360) = 4.5e-4; four of them.
constexpr double kShareTolerance = 1.8e-3;

TEST(ZScoreDistribution, KnownDistributionsHaveTheirTailShares) {
  EXPECT_NEAR(Zd(Uniform), 0.2113, kShareTolerance);  // (1 - 1/sqrt(3)) / 2
  EXPECT_NEAR(Zd(Gauss), 0.1587, kShareTolerance);    // 1 - Phi(1)
  EXPECT_NEAR(Zd([](auto& g) {
                const double u = Uniform(g) - 0.5;
                return u < 0 ? std::log(1 + 2 * u) : -std::log(1 - 2 * u);
              }),
              0.5 * std::exp(-std::sqrt(2.0)), kShareTolerance);  // Laplace
}

TEST(ZScoreDistribution, OneSidedAndUnchangedByScaleAndShift) {
  // Exponential: above mean + sigma lies e^-2; below mean - sigma nothing.
  const auto exponential = [](std::mt19937_64& g) { return -std::log(1 - Uniform(g)); };
  EXPECT_NEAR(Zd(exponential), std::exp(-2.0), kShareTolerance);
  // Its mirror image ends at mean + sigma: only the error of the estimates, some sqrt(8 / n), lets
  // weights through. A two-sided count would give e^-2.
  EXPECT_LT(Zd([&](auto& g) { return -exponential(g); }), 0.01);
  // Rounding to F32 may move single weights over the threshold.
  EXPECT_NEAR(Zd([&](auto& g) { return 0.25 * exponential(g) + 3; }), Zd(exponential), 1e-5);
  EXPECT_EQ(Zd([](auto&) { return 0.5; }), 0);  // all equal
}

TEST(Scorers, AreSortedAndFoundByName) {
  absl::string_view before;
  for (const ScorerDef* scorer : Scorers()) {
    EXPECT_LT(before, scorer->name);
    before = scorer->name;
    EXPECT_EQ(scorer->score_layer == nullptr, scorer->gives_costs()) << scorer->name;
    for (absl::string_view name : scorer->evidence) EXPECT_OK(FindCollector(name).status());
    LWQ_ASSERT_OK_AND_ASSIGN(const ScorerDef* found, FindScorer(scorer->name));
    EXPECT_EQ(found, scorer);
  }
  EXPECT_THAT(FindScorer("fisher"),
              testing::FailsWith("SCORER_UNKNOWN", ::testing::HasSubstr("lim, random, reverse")));
}

// By their definitions (methods 1.1, 1.3, 1.4), of a layer that turns its input by a quarter.
TEST(Scorers, DirectionsAreScoredByTheirDefinitions) {
  testing::CollectedEvidence evidence(nullptr);
  evidence.values = {{"layer-cosine", 0.75}, {"layer-angle", 0.25}};
  const ScoredLayer layer{.layer = 3, .evidence = &evidence};
  const auto score = [&](absl::string_view name) {
    return FindScorer(name).value()->score_layer(layer).value();
  };
  EXPECT_EQ(score("lim"), -0.75);
  EXPECT_EQ(score("reverse"), 0.75);
  EXPECT_EQ(score("bi"), 0.25);
  EXPECT_EQ(score("bi") - 1, score("lim"));
  EXPECT_EQ(score("angular"), 0.25);
  evidence.values.clear();
  EXPECT_EQ(FindScorer("bi").value()->score_layer(layer).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Scorers, FirstAndLastGoByPositionAlone) {
  const auto score = [](absl::string_view name, int layer) {
    return FindScorer(name).value()->score_layer(ScoredLayer{.layer = layer}).value();
  };
  EXPECT_GT(score("first", 0), score("first", 1));
  EXPECT_LT(score("last", 0), score("last", 1));
}

TEST(Scorers, ZdDirectionsAreOpposite) {
  const DecoderSpec spec = Spec();
  const DrawnWeights weights(Gauss);
  const ScoredLayer layer{.spec = &spec, .weights = &weights};
  EXPECT_EQ(FindScorer("zd").value()->score_layer(layer).value(),
            -FindScorer("zd-larger").value()->score_layer(layer).value());
}

TEST(Scorers, RandomDependsOnSeedAndLayerAlone) {
  const auto score = [](uint64_t seed, int layer) {
    return FindScorer("random")
        .value()
        ->score_layer(ScoredLayer{.layer = layer, .options = *OptionValues::Make("", (*FindScorer("random"))->options, {{"seed", absl::StrCat(seed)}})})
        .value();
  };
  EXPECT_EQ(score(1, 2), score(1, 2));
  EXPECT_NE(score(1, 2), score(1, 3));
  EXPECT_NE(score(1, 2), score(2, 2));
  EXPECT_NE(score(1, 2), score(2, 1));
}

}  // namespace
}  // namespace lwq
