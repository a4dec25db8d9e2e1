// z-score distribution (arXiv 2406.17415). The paper states both directions; `zd` takes the
// abstract's (fewer weights far above the mean = more important) and `zd-larger` section 3.1's.
#include "worker/engine/score/zd.h"

#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

absl::Status ForEachLinear(const DecoderSpec& spec, const WeightSource& weights, int layer,
                           const std::function<void(const Matrix&)>& visit) {
  for (const LinearSpec& linear : spec.layers[static_cast<size_t>(layer)].linears) {
    const LinearShape& shape = linear.shape;
    Matrix weight(shape.out_features, shape.in_features);
    if (weight.data() == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory to score ", shape.module));
    }
    LWQ_RETURN_IF_ERROR(weights.ReadLinear(shape.module, weight.view()));
    visit(weight);
  }
  return absl::OkStatus();
}

// Mean and sum of squared deviations, matrix by matrix (Chan, Golub, LeVeque 1983).
struct Moments {
  double count = 0, mean = 0, deviation = 0;

  void Merge(const Matrix& m) {
    const double n = static_cast<double>(m.size());
    double sum = 0;
    for (int64_t i = 0; i < m.size(); ++i) sum += m.data()[i];
    const double own_mean = sum / n;
    double own = 0;
    for (int64_t i = 0; i < m.size(); ++i) {
      own += (m.data()[i] - own_mean) * (m.data()[i] - own_mean);
    }
    const double gap = own_mean - mean;
    deviation += own + gap * gap * count * n / (count + n);
    mean += gap * n / (count + n);
    count += n;
  }
};

absl::StatusOr<double> ScoreZd(const ScoredLayer& layer) {
  LWQ_ASSIGN_OR_RETURN(const double share,
                       ShareAboveOneSigma(*layer.spec, *layer.weights, layer.layer));
  return -share;
}

absl::StatusOr<double> ScoreZdLarger(const ScoredLayer& layer) {
  return ShareAboveOneSigma(*layer.spec, *layer.weights, layer.layer);
}

}  // namespace

absl::StatusOr<double> ShareAboveOneSigma(const DecoderSpec& spec, const WeightSource& weights,
                                          int layer) {
  Moments moments;
  LWQ_RETURN_IF_ERROR(
      ForEachLinear(spec, weights, layer, [&](const Matrix& m) { moments.Merge(m); }));
  const double sigma = std::sqrt(moments.deviation / moments.count);
  if (!(sigma > 0)) return 0.0;
  int64_t above = 0;
  LWQ_RETURN_IF_ERROR(ForEachLinear(spec, weights, layer, [&](const Matrix& m) {
    for (int64_t i = 0; i < m.size(); ++i) above += (m.data()[i] - moments.mean) / sigma > 1;
  }));
  return static_cast<double>(above) / moments.count;
}

extern const ScorerDef zd_scorer;
const ScorerDef zd_scorer = {
    .name = "zd",
    .help =
        "z-score distribution: a smaller share of weights one sigma above the mean is important",
    .score_layer = &ScoreZd,
    .is_baseline = true};

extern const ScorerDef zd_larger_scorer;
const ScorerDef zd_larger_scorer = {
    .name = "zd-larger",
    .help = "z-score distribution: a larger share of weights one sigma above the mean is important",
    .score_layer = &ScoreZdLarger};

}  // namespace lwq
