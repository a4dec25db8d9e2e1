// The angle between a layer's input and its raw output at the last token of each sequence, over pi,
// mean over the sequences (Gromov et al., arXiv 2403.17887; methods 1.4).
#include <algorithm>
#include <cmath>
#include <numbers>

#include "worker/engine/evidence/collector.h"

namespace lwq {

extern const CollectorDef layer_angle_collector;

namespace {

class LayerAngle : public Collector {
 public:
  absl::Status ObserveDirections(const TokenBatch& batch,
                                 absl::Span<const double> cosines) override {
    double sum = 0;
    for (const Segment& sequence : batch.segments) {
      // Rounding takes a cosine past one, where there is no angle.
      const size_t last = static_cast<size_t>(sequence.begin + sequence.size - 1);
      sum += std::acos(std::clamp(cosines[last], -1.0, 1.0)) / std::numbers::pi;
    }
    mean_ = sum / static_cast<double>(batch.segments.size());
    return absl::OkStatus();
  }
  absl::Status Finish(EvidenceSink& sink) override {
    return sink.AddValue(layer_angle_collector.name, mean_);
  }

 private:
  double mean_ = 0;
};

absl::StatusOr<std::unique_ptr<Collector>> MakeLayerAngle(const CollectorContext&) {
  return std::make_unique<LayerAngle>();
}

}  // namespace

const CollectorDef layer_angle_collector = {
    .name = "layer-angle",
    .help = "the mean angle of a layer's input and output at the last token of each sequence",
    .watches_inputs = false,
    .watches_directions = true,
    .make = &MakeLayerAngle,
};

}  // namespace lwq
