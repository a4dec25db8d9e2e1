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
    for (const InputSpec& input : context.inputs) {
      LWQ_ASSIGN_OR_RETURN(auto gram, context.device->NewMatrix(input.features, input.features));
      LWQ_RETURN_IF_ERROR(context.device->FillZero(gram->view()));
      out->grams_.push_back(std::move(gram));
    }
    return out;
  }
  explicit SecondMoments(const CollectorContext& context) : context_(context) {}

  absl::Status ObserveInput(size_t input, DeviceView<const float> x) override {
    return context_.device->AccumulateGram(x, context_.compute, grams_[input]->view());
  }
  absl::Status Finish(EvidenceSink& sink) override {
    for (size_t i = 0; i < grams_.size(); ++i) {
      LWQ_RETURN_IF_ERROR(
          sink.AddTriangle(second_moments_collector.name, context_.inputs[i], grams_[i]->view()));
      grams_[i].reset();
    }
    return absl::OkStatus();
  }

 private:
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
