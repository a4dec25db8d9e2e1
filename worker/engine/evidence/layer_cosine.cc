// The mean over tokens of the cosine between a layer's input and its raw output (methods 1.1).
#include <numeric>

#include "worker/engine/evidence/collector.h"

namespace lwq {

extern const CollectorDef layer_cosine_collector;

namespace {

class LayerCosine : public Collector {
 public:
  absl::Status ObserveDirections(const TokenBatch&, absl::Span<const double> cosines) override {
    mean_ =
        std::accumulate(cosines.begin(), cosines.end(), 0.0) / static_cast<double>(cosines.size());
    return absl::OkStatus();
  }
  absl::Status Finish(EvidenceSink& sink) override {
    return sink.AddValue(layer_cosine_collector.name, mean_);
  }

 private:
  double mean_ = 0;
};

absl::StatusOr<std::unique_ptr<Collector>> MakeLayerCosine(const CollectorContext&) {
  return std::make_unique<LayerCosine>();
}

}  // namespace

const CollectorDef layer_cosine_collector = {
    .name = "layer-cosine",
    .help = "the mean cosine of a layer's input and output",
    .watches_inputs = false,
    .watches_directions = true,
    .make = &MakeLayerCosine,
};

}  // namespace lwq
