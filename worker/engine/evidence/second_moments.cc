// X^T X of each input: what second-order quantizers minimise, and what weighs an error of the
// weights as an error of the outputs.
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"

namespace lwq {

extern const CollectorDef second_moments_collector;

namespace {

class SecondMoments : public Collector {
 public:
  static absl::StatusOr<std::unique_ptr<Collector>> Make(const CollectorContext& context) {
    auto out = std::make_unique<SecondMoments>(context);
    for (size_t i = 0; i < context.inputs.size(); ++i) {
      // Those of experts come one after the other.
      if (!context.inputs[i].routed) LWQ_RETURN_IF_ERROR(out->Reserve(i));
    }
    return out;
  }
  explicit SecondMoments(const CollectorContext& context)
      : context_(context), grams_(context.inputs.size()) {}

  absl::Status ObserveInput(size_t input, DeviceView<const float> x) override {
    if (grams_[input] == nullptr) LWQ_RETURN_IF_ERROR(Reserve(input));
    return context_.device->AccumulateGram(x, context_.compute, grams_[input]->view());
  }
  absl::Status FinishInput(size_t input, EvidenceSink& sink) override {
    if (grams_[input] == nullptr) LWQ_RETURN_IF_ERROR(Reserve(input));  // no token came: zeros
    return Give(input, sink);
  }
  absl::Status Finish(EvidenceSink& sink) override {
    for (size_t i = 0; i < grams_.size(); ++i) LWQ_RETURN_IF_ERROR(Give(i, sink));
    return absl::OkStatus();
  }

 private:
  absl::Status Reserve(size_t input) {
    const int64_t features = context_.inputs[input].features;
    LWQ_ASSIGN_OR_RETURN(grams_[input], context_.device->NewMatrix(features, features));
    return context_.device->FillZero(grams_[input]->view());
  }
  // Nothing where it was given already.
  absl::Status Give(size_t input, EvidenceSink& sink) {
    if (grams_[input] == nullptr) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(sink.AddTriangle(second_moments_collector.name, context_.inputs[input],
                                         grams_[input]->view()));
    grams_[input].reset();
    return absl::OkStatus();
  }

  const CollectorContext context_;
  std::vector<std::unique_ptr<DeviceMatrix>> grams_;  // by input: the lower triangles
};

}  // namespace

const CollectorDef second_moments_collector = {
    .name = "second-moments",
    .help = "the sum over tokens of x x^T of each input",
    .watches_inputs = true,
    .watches_directions = false,
    .make = &SecondMoments::Make,
};

}  // namespace lwq
