// The arithmetic of one layer with a mixture of experts, for decoder.cc: attention and routing over
// all tokens first, then expert after expert over the tokens that go to it. So the weights of a few
// experts are in memory at a time, and an expert's inputs are seen whole before the next one's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "worker/engine/model/decoder.h"
#include "worker/engine/model/layer_run.h"

namespace lwq {

// Products are made of this many rows or a multiple: devices build a kernel for each number.
inline constexpr int64_t kExpertRows = 32;
constexpr int64_t RoundUpForExperts(int64_t rows) {
  return (rows + kExpertRows - 1) / kExpertRows * kExpertRows;
}
// Experts that are loaded together: hidden states are gone through once for all of them.
inline constexpr size_t kExpertsAtOnce = 4;

class SparseRun {
 public:
  using RopeOf =
      std::function<absl::StatusOr<const RopeTable*>(const PreparedBatch::Chunk& chunk)>;

  // All must outlive it. `run` is of the same layer and workspace; `scratch` as
  // Decoder::set_scratch_directory, or empty.
  SparseRun(const Decoder& decoder, const LayerWeights& weights, const LayerSlots& slots,
            const LinearInputObserver& observer, const std::string& scratch,
            DecoderWorkspace& workspace, LayerRun& run);

  // `cosine`: [1, T], or null.
  absl::Status Run(const PreparedBatch& batch, StateStore& states, const RopeOf& rope_of,
                   DeviceBuffer<double>* cosine);

 private:
  // The tokens of a chunk that go to an expert: `count` rows of the chunk from `begin` on in
  // `rows_` and `shares_`, where the last is repeated until RoundUpForExperts(count).
  struct Routed {
    int64_t begin = 0, count = 0;
  };
  struct ExpertWeights {
    std::shared_ptr<const PreparedWeight> gate, up, down;
  };

  absl::Status AttendAndRoute(const PreparedBatch& batch, StateStore& states, StateStore& sums,
                              StateStore* inputs, const RopeOf& rope_of);
  absl::Status RunShared(DeviceView<float> normed, DeviceView<float> sum);
  absl::Status SortTokens(const PreparedBatch& batch);
  absl::Status RunExperts(const PreparedBatch& batch, StateStore& states, StateStore& sums,
                          size_t first, size_t end);
  absl::StatusOr<ExpertWeights> Load(size_t expert) const;
  absl::Status RunExpert(size_t expert, const ExpertWeights& weights, const Routed& routed,
                         DeviceView<const float> normed, DeviceView<float> sum);
  absl::Status Finish(const PreparedBatch& batch, StateStore& states, StateStore& sums,
                      StateStore* inputs, DeviceBuffer<double>* cosine);

  const DecoderSpec& spec_;
  const LayerSpec& layer_;
  Device* const device_;
  const LayerWeights& weights_;
  const LayerSlots& slots_;
  const LinearInputObserver& observer_;
  const std::string& scratch_;
  DecoderWorkspace& w_;
  LayerRun& run_;

  std::unique_ptr<DeviceBuffer<int32_t>> chosen_;  // [T, per_token]
  std::unique_ptr<DeviceMatrix> share_;            // likewise
  std::vector<std::vector<Routed>> routed_;        // by chunk and expert
  std::unique_ptr<DeviceBuffer<int32_t>> rows_;
  std::unique_ptr<DeviceMatrix> shares_;
};

}  // namespace lwq
