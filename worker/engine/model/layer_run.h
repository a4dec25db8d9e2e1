// The arithmetic of one layer over one chunk of tokens, for decoder.cc.
#pragma once

#include "worker/engine/model/decoder.h"

namespace lwq {

// UNIMPLEMENTED "ARCH_UNSUPPORTED" names what the layer lacks.
absl::StatusOr<LayerSlots> FindSlots(const LayerSpec& layer);

// Values per token that the layer needs in DecoderWorkspace::inner.
int64_t InnerWidth(const DecoderSpec& spec, const LayerSpec& layer, const LayerSlots& slots);

class LayerRun {
 public:
  // All must outlive it.
  LayerRun(const Decoder& decoder, const LayerWeights& weights, const LayerSlots& slots,
           const LinearInputObserver& observer, DecoderWorkspace& workspace);

  // Over the chunk's hidden states, which are in the workspace's `hidden`.
  absl::Status Run(const PreparedBatch::Chunk& chunk, const RopeTable& rope);

  // Its parts, for layers that put something else in between. Hidden states become those behind
  // attention.
  absl::Status RunAttention(const PreparedBatch::Chunk& chunk, const RopeTable& rope);
  // What the MLP reads, of hidden states behind attention, in the workspace's `normed`.
  absl::StatusOr<DeviceView<float>> MlpInput(int64_t rows);
  // What the MLP's last linear reads.
  absl::StatusOr<DeviceView<float>> GateUp(DeviceView<const float> normed);
  // x [T, features] is about to be read by the linear, of which the observer learns: x becomes what
  // the linear multiplies.
  absl::Status EnterLinear(size_t linear, DeviceView<float> x) const;
  absl::Status ObserveInput(size_t input, DeviceView<const float> x) const;
  BiasedWeight Weight(size_t linear) const;

 private:
  struct Projections {
    DeviceView<float> query, key, value, attended;
  };
  Projections CarveProjections(int64_t rows) const;
  absl::Status Project(DeviceView<const float> normed, const Projections& to) const;
  absl::StatusOr<DeviceView<float>> Attend(const PreparedBatch::Chunk& chunk, const RopeTable& rope,
                                           DeviceView<const float> normed);
  absl::Status AddOutput(DeviceView<const float> x, size_t linear, std::optional<size_t> norm,
                         DeviceView<float> hidden);

  absl::Status Normalize(DeviceView<const float> x, size_t norm, DeviceView<float> out) const;

  const DecoderSpec& spec_;
  const LayerSpec& layer_;
  Device* const device_;
  const LayerWeights& weights_;
  const LayerSlots& slots_;
  const LinearInputObserver& observer_;
  DecoderWorkspace& w_;
};

}  // namespace lwq
