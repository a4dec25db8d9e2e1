// The decoder, one layer at a time over all tokens: memory is one layer's weights plus a chunk of
// activations, whatever the model's size. Hidden states live with the caller (host memory, or a
// mapped file when they are many).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/device/device.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// Packed sequences; never padded. Row i of every hidden-state matrix belongs to tokens[i].
struct TokenBatch {
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;  // cover the tokens in order; a parent comes before its children

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  // Appends a sequence of its own (or a continuation of segment `parent`) and returns its index.
  int Add(absl::Span<const int32_t> sequence, int parent = -1);
};

// Sees each input of a layer's linears while the layer runs, in device memory: X [T, features];
// `input` is of LayerSpec::inputs. Called on the caller's thread, chunk after chunk in token order.
using LinearInputObserver = std::function<absl::Status(size_t input, ConstMatrixView x)>;

// One layer's weights, ready to multiply, in the order of its LayerSpec. Cheap to copy; linears can
// be exchanged one by one.
struct LayerWeights {
  int layer = 0;
  std::vector<std::shared_ptr<const PreparedWeight>> linears;
  std::vector<std::shared_ptr<DeviceMatrix>> biases;  // by linear; null where there is none
  std::vector<std::shared_ptr<DeviceMatrix>> norms;
};

struct HeadWeights {
  std::shared_ptr<DeviceMatrix> final_norm;
  std::shared_ptr<const PreparedWeight> projection;  // [vocabulary, hidden]
};

// Where the decoder finds what it needs in a layer's lists.
struct LayerSlots {
  size_t query, key, value, output, gate, up, down;
  size_t attention_norm, mlp_norm;
  std::optional<size_t> query_norm, key_norm;
};

// Activations of one chunk, in device memory.
struct DecoderWorkspace {
  int64_t rows = 0;
  std::unique_ptr<DeviceMatrix> hidden, normed;  // [rows, hidden_size]
  // Flat: queries, keys, values and what attention answers, then the inputs of the down projection.
  std::unique_ptr<DeviceMatrix> inner;
};

// One caller at a time: layers run in a workspace that is kept from call to call.
class Decoder {
 public:
  // `weights` and `device` must outlive it. UNIMPLEMENTED names the field of the spec that this
  // decoder cannot do.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(DecoderSpec spec,
                                                         const WeightSource* weights,
                                                         Device* device, ComputeType compute);

  const DecoderSpec& spec() const { return spec_; }
  Device* device() const { return device_; }

  // hidden [T, hidden_size], host memory. INVALID_ARGUMENT for a token outside the vocabulary.
  absl::Status Embed(absl::Span<const int32_t> tokens, MatrixView hidden) const;
  absl::StatusOr<LayerWeights> LoadLayer(int layer) const;
  // Prepares one linear of host memory for this decoder's compute type.
  absl::StatusOr<std::shared_ptr<const PreparedWeight>> Prepare(ConstMatrixView weight) const;
  // hidden [T, hidden_size] in host memory, replaced by the layer's output (raw, before any final
  // norm). Works through chunks of whole top-level segments (with their children) of about
  // kChunkTokens, so memory does not grow with T. The cut depends on the batch alone. `cosines`,
  // unless empty, are [T]: of each token's input and output.
  absl::Status RunLayer(const LayerWeights& layer, const TokenBatch& batch, MatrixView hidden,
                        const LinearInputObserver& observer = nullptr,
                        absl::Span<double> cosines = {}) const;
  absl::StatusOr<HeadWeights> LoadHead() const;
  // logits [rows, vocabulary] in device memory for rows of hidden (host memory).
  absl::Status Logits(const HeadWeights& head, ConstMatrixView hidden, MatrixView logits) const;

  static constexpr int64_t kChunkTokens = 2048;

 private:
  Decoder(DecoderSpec spec, std::vector<LayerSlots> slots, const WeightSource* weights,
          Device* device, ComputeType compute);
  // A norm's weight, or any vector (plus `offset`), [1, size] on the device.
  absl::StatusOr<std::shared_ptr<DeviceMatrix>> LoadNorm(const NormSpec& norm) const;
  absl::StatusOr<std::shared_ptr<DeviceMatrix>> LoadVector(const std::string& tensor, int64_t size,
                                                           double offset) const;
  absl::Status ReserveWorkspace(int64_t rows) const;

  const DecoderSpec spec_;
  const std::vector<LayerSlots> slots_;  // by layer
  const WeightSource* const weights_;
  Device* const device_;
  const ComputeType compute_;
  // Of each rotary embedding that some layer has, and which one that is, by layer.
  std::vector<std::vector<float>> inverse_frequencies_;
  std::vector<size_t> rope_of_layer_;
  mutable DecoderWorkspace workspace_;
};

// Embeds and runs every layer. `progress(layer)` before each layer; a non-OK answer stops the run.
absl::Status RunAllLayers(const Decoder& decoder, const TokenBatch& batch, MatrixView hidden,
                          const std::function<absl::Status(int layer)>& progress = nullptr);

}  // namespace lwq
