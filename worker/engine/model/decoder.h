// The decoder, one layer at a time over all tokens: memory is one layer's weights plus a chunk of
// activations, whatever the model's size. Hidden states live with the caller (state_store.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/device/device.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/state_store.h"
#include "worker/engine/model/weight_cache.h"
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

struct TokenChunk;

// A batch cut into chunks of whole top-level segments (with their children) of about so many tokens
// as the decoder takes at a time, as the device's operations read it. A sequence that is longer and
// has no children is cut into chunks that follow each other. Made once for all layers.
struct PreparedBatch {
  struct Chunk {
    int64_t begin = 0;  // first row
    int64_t size = 0;
    int64_t rope_length = 0;  // what its rotations depend on (rope.h)
    std::unique_ptr<DeviceBatch> on_device;
    // Of a part of a long sequence: how many of its rows are in the chunks before, and all rows so
    // far as segments that see each other.
    int64_t history = 0;
    std::unique_ptr<DeviceBatch> attended;
  };
  std::vector<Chunk> chunks;
  int64_t longest_history = 0;  // and what is attended with it; 0: no sequence is cut
  int64_t num_tokens = 0;
  int64_t num_positions = 0;  // one more than the largest that a token has
};

// Sees each input of a layer's linears while the layer runs, on the caller's thread. A function of
// `observe`'s kind will do where nothing needs to know when an input is done.
struct LinearInputObserver {
  using Observe = std::function<absl::Status(size_t input, DeviceView<const float> x)>;
  using Finished = std::function<absl::Status(size_t input)>;

  LinearInputObserver() = default;
  LinearInputObserver(std::nullptr_t) {}  // NOLINT: none
  template <typename F>
  requires std::is_invocable_r_v<absl::Status, F, size_t, DeviceView<const float>>
  LinearInputObserver(F f) : observe(std::move(f)) {}  // NOLINT
  LinearInputObserver(Observe o, Finished f) : observe(std::move(o)), finished(std::move(f)) {}

  // X [T, features] of LayerSpec::inputs[input], chunk after chunk in token order.
  Observe observe;
  // A routed input has been seen whole; also one that no token came to. Expert after expert, so
  // that what is kept of an input can go before the next one comes.
  Finished finished;
};

// One layer's weights, ready to multiply, in the order of its LayerSpec. Cheap to copy; linears can
// be exchanged one by one.
struct LayerWeights {
  // Makes the weight of an expert's linear when the expert's turn comes: a layer may have more of
  // them than there is memory.
  using LoadExpert =
      std::function<absl::StatusOr<std::shared_ptr<const PreparedWeight>>(size_t linear)>;

  int layer = 0;
  std::vector<std::shared_ptr<const PreparedWeight>> linears;  // null where `load_expert` is for it
  // By linear; those that read one input have one rule.
  std::vector<ActivationRule> rules;
  LoadExpert load_expert;
  std::shared_ptr<const PreparedWeight> router, shared_gate;  // of a mixture of experts
  std::vector<std::shared_ptr<DeviceMatrix>> biases;          // by linear; null where there is none
  std::vector<std::shared_ptr<DeviceMatrix>> norms;
};

// Where the decoder finds what it needs in a layer's lists. Where one linear does the work of
// several, they are the same.
struct LayerSlots {
  struct Expert {
    size_t gate, up, down;
  };
  size_t query, key, value, output;
  bool has_mlp = true;  // for all tokens; beside experts it is their shared one
  size_t gate = 0, up = 0, down = 0;
  std::vector<Expert> experts;
  size_t attention_norm, mlp_norm;
  std::optional<size_t> query_norm, key_norm, post_attention_norm, post_mlp_norm;

  bool fused_attention() const { return query == key; }
  bool fused_mlp() const { return has_mlp && gate == up; }
  bool sparse() const { return !experts.empty(); }
};

// Activations of one chunk, in device memory.
struct DecoderWorkspace {
  int64_t rows = 0;
  std::unique_ptr<DeviceMatrix> hidden, normed;  // [rows, hidden_size]
  // Flat: queries, keys, values and what attention answers, then the inputs of the down projection.
  std::unique_ptr<DeviceMatrix> inner;
  // For experts: what one of them reads and answers, and the sum of all answers [rows,
  // hidden_size]; the router's logits [rows, experts]; the shared expert's gates [rows, 1].
  std::unique_ptr<DeviceMatrix> gathered, answer, sum, logits, gates;
  // Keys and values of a long sequence so far, [tokens, kv_heads * head_dim].
  std::unique_ptr<DeviceMatrix> keys, values;
};

// One caller at a time: layers run in a workspace that is kept from call to call.
class Decoder {
 public:
  // `weights` and `device` must outlive it. UNIMPLEMENTED names the field of the spec that this
  // decoder cannot do.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(DecoderSpec spec,
                                                         const WeightSource* weights,
                                                         Device* device, ComputeType compute);

  // A layer with experts keeps up to two more matrices of hidden states while it runs: in files of
  // this folder instead of memory.
  void set_scratch_directory(std::string directory) { scratch_directory_ = std::move(directory); }
  const std::string& scratch_directory() const { return scratch_directory_; }

  // Memory of the device beside what a layer needs, in bytes: for hidden states that layers run
  // over, and for weights that stay prepared from pass to pass. At first there is none.
  void set_spare_bytes(int64_t states, int64_t weights);
  int64_t spare_states_bytes() const { return spare_states_bytes_; }
  int64_t spare_weights_bytes() const { return kept_weights_.limit_bytes(); }
  // `hidden` [any, hidden_size] for the layers to come (state_store.h), while other states of
  // `open_bytes` are open.
  absl::StatusOr<std::unique_ptr<StateStore>> OpenStates(MatrixView hidden,
                                                         int64_t open_bytes = 0) const {
    return lwq::OpenStates(device_, hidden, spare_states_bytes_ - open_bytes);
  }

  const DecoderSpec& spec() const { return spec_; }
  Device* device() const { return device_; }

  // hidden [T, hidden_size], host memory. INVALID_ARGUMENT for a token outside the vocabulary.
  absl::Status Embed(absl::Span<const int32_t> tokens, MatrixView hidden) const;
  // UNIMPLEMENTED "QUANT_FORMAT_UNSUPPORTED" where linears that read one input round it
  // differently.
  absl::StatusOr<LayerWeights> LoadLayer(int layer) const;
  // A weight [out, in] that `fill` writes, prepared for this decoder's compute type.
  using FillWeight = std::function<absl::Status(DeviceView<float> weight)>;
  absl::StatusOr<std::shared_ptr<const PreparedWeight>> Prepare(int64_t out_features,
                                                                int64_t in_features,
                                                                const FillWeight& fill) const;
  // The cut depends on the batch alone.
  absl::StatusOr<PreparedBatch> PrepareBatch(const TokenBatch& batch) const;
  // states [T, hidden_size], replaced by the layer's output (raw, before any final norm), chunk
  // after chunk, so that memory does not grow with T. `cosines`, unless empty, are [T]: of each
  // token's input and output, read back once at the end.
  absl::Status RunLayer(const LayerWeights& layer, const PreparedBatch& batch, StateStore& states,
                        const LinearInputObserver& observer = nullptr,
                        absl::Span<double> cosines = {}) const;
  // The same for one layer alone, with hidden [T, hidden_size] in host memory.
  absl::Status RunLayer(const LayerWeights& layer, const TokenBatch& batch, MatrixView hidden,
                        const LinearInputObserver& observer = nullptr,
                        absl::Span<double> cosines = {}) const;
  // Of the output head (head_pass.h): the weight of the norm before it, [1, hidden_size], and rows
  // [first, first + out.rows) of itself, [vocabulary, hidden_size].
  absl::StatusOr<std::shared_ptr<DeviceMatrix>> LoadHeadNorm() const;
  absl::Status LoadHeadRows(int64_t first, DeviceView<float> out) const;

  static constexpr int64_t kChunkTokens = 2048;
  // How many tokens pass through a layer at a time, of long sequences or many short ones.
  int64_t chunk_tokens() const { return chunk_tokens_; }
  void set_chunk_tokens(int64_t tokens) { chunk_tokens_ = tokens; }
  // Gives back the workspace, which the next layer makes anew.
  void ReleaseWorkspace() const { workspace_ = DecoderWorkspace(); }

 private:
  Decoder(DecoderSpec spec, std::vector<LayerSlots> slots, const WeightSource* weights,
          Device* device, ComputeType compute);
  // A norm's weight, or any vector (plus `offset`), [1, size] on the device.
  absl::StatusOr<std::shared_ptr<DeviceMatrix>> LoadNorm(const NormSpec& norm) const;
  absl::StatusOr<std::shared_ptr<DeviceMatrix>> LoadVector(const std::string& tensor, int64_t size,
                                                           double offset) const;
  absl::StatusOr<std::shared_ptr<const PreparedWeight>> LoadLinear(const LinearSpec& linear) const;
  absl::StatusOr<std::shared_ptr<const PreparedWeight>> LoadRouter(const std::string& tensor,
                                                                   int64_t rows) const;
  absl::Status ReserveForExperts(int64_t rows) const;
  absl::Status ReserveWorkspace(const PreparedBatch& batch) const;
  // The parts of a chunk that is one long sequence.
  absl::Status AddParts(const TokenChunk& chunk, PreparedBatch& prepared) const;
  // The rotations of a layer for at least so many positions, in sequences of a RopeLengthOf.
  absl::StatusOr<const RopeTable*> RopeFor(size_t layer, int64_t rope_length,
                                           int64_t num_positions) const;
  int64_t RopeLengthOf(int64_t length) const;

  const DecoderSpec spec_;
  const std::vector<LayerSlots> slots_;  // by layer
  const WeightSource* const weights_;
  Device* const device_;
  const ComputeType compute_;
  std::string scratch_directory_;
  int64_t chunk_tokens_ = kChunkTokens;
  int64_t spare_states_bytes_ = 0;
  mutable WeightCache kept_weights_;
  // The rotary embeddings that layers have, and which one that is, by layer.
  std::vector<RopeSpec> ropes_;
  std::vector<size_t> rope_of_layer_;
  // By embedding and RopeLength; they grow with what is asked for.
  mutable std::map<std::pair<size_t, int64_t>, std::unique_ptr<RopeTable>> rope_tables_;
  mutable DecoderWorkspace workspace_;
};

// Embeds and runs every layer. `progress(layer)` before each layer; a non-OK answer stops the run.
absl::Status RunAllLayers(const Decoder& decoder, const TokenBatch& batch, MatrixView hidden,
                          const std::function<absl::Status(int layer)>& progress = nullptr);

}  // namespace lwq
