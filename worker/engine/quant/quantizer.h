// The registry of methods, and the kind of method that sees one linear at a time: a Quantizer turns its
// weights into codes on a grid, or into blocks of GGUF types. It sees a matrix and, if it asks for
// calibration, the second moments of the linear's inputs. A method that works on a layer as a whole
// is a function of LayerRequest (layer_quantizer.h). Neither knows models or files.
//
// Life of a Quantizer: calibration accumulates X^T X (evidence/second_moments.cc); Prepare makes one
// InputStatistics from it, shared by all linears that read the same input (q, k, v; gate, up); and
// Quantize is called once per linear with every width that is wanted: what the widths share (the
// factor) is computed once.
//
// Adding one: quant/<name>.cc that defines a QuantizerDef, and a line in quantizers.def.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/option.h"
#include "worker/engine/device/device.h"
#include "worker/engine/gguf/block_fit.h"

namespace lwq {

// The damped H [K, K] as refinement reads it: blocks of columns, in their original order.
struct BlockedHessian {
  static constexpr int64_t kBlock = 256;
  // The columns of H from `first` on, kBlock or what is left of them: a weight of K inputs in the
  // compute type asked for. `first` is a multiple of kBlock.
  const PreparedWeight& ColumnsFrom(int64_t first) const {
    return *columns[static_cast<size_t>(first / kBlock)];
  }
  std::vector<std::unique_ptr<PreparedWeight>> columns;
  std::unique_ptr<DeviceMatrix> diagonal;  // [K, kBlock], F32: row k of the block that k is in
};

// U of H^-1 = U^T U, for H damped and in the order of processing, as GPTQ reads it.
struct BlockedFactor {
  static constexpr int64_t kBlock = 512;
  // What the errors of columns [first, first + kBlock) do to all behind them: these rows of U as a
  // weight of kBlock inputs, in the compute type asked for. `first` is a multiple of kBlock, not
  // the last.
  const PreparedWeight& RowsFrom(int64_t first) const {
    return *behind[static_cast<size_t>(first / kBlock)];
  }
  std::vector<std::unique_ptr<PreparedWeight>> behind;
  std::unique_ptr<DeviceMatrix> u;  // [K, K], F32
};

// Second moments of a linear's input over N tokens, in device memory. Immutable after Create.
class InputStatistics {
 public:
  // `gram` [K, K]: sum over tokens of x x^T, lower triangle; it is taken over and damped, permuted
  // and factored as `options` say. See hessian.cc for the damping ladder.
  struct Options {
    double damping = 0.01;   // times the mean of the diagonal, at first
    bool act_order = true;   // process columns by descending diagonal, with static groups
    bool refinement = true;  // keep H itself, for refinement.h
    ComputeType compute = ComputeType::kF32;  // of the quantizer's large products
  };
  static absl::StatusOr<std::shared_ptr<const InputStatistics>> Create(
      Device* device, std::unique_ptr<DeviceMatrix> gram, int64_t num_tokens,
      const Options& options);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t in_features() const { return static_cast<int64_t>(order_.size()); }
  bool act_order() const { return act_order_; }
  ComputeType compute() const { return compute_; }
  // Column order of processing: order()[j] is the original column handled j-th.
  const std::vector<int32_t>& order() const { return order_; }
  // The same on the device, and its inverse: where each original column stands.
  DeviceSpan<const int32_t> device_order() const { return device_order_->span(); }
  DeviceSpan<const int32_t> device_places() const { return device_places_->span(); }
  // Null when the ladder ended without one, and the quantizer must do without second-order
  // information.
  const BlockedFactor* factor() const { return factor_.get(); }
  // Null without `refinement` and where there is no factor.
  const BlockedHessian* hessian() const { return hessian_.get(); }
  // What a scale search weighs columns with, [K] in their original order: diag(H) of H = gram /
  // num_tokens with the damping that was used or a small floor, which keeps columns without inputs
  // from being ignored; ones where no column has inputs.
  DeviceSpan<const float> column_weights() const { return column_weights_->span(); }
  double damping_used() const { return damping_used_; }
  int damping_retries() const { return damping_retries_; }
  // Columns whose inputs were zero throughout. Damping alone holds them: they touch no other column
  // and keep the code nearest to their weight.
  int64_t num_dead_columns() const { return num_dead_columns_; }

 private:
  InputStatistics() = default;
  absl::Status SetOrder(Device* device, const std::vector<float>& diagonal);
  // `gram` has the diagonal `raw`, whose mean times `scale` is `mean`.
  absl::Status Factor(Device* device, std::unique_ptr<DeviceMatrix> gram,
                      const std::vector<float>& raw, double scale, double mean,
                      const Options& options);
  absl::Status SetColumnWeights(Device* device, std::vector<float> diagonal);

  int64_t num_tokens_ = 0;
  bool act_order_ = false;
  ComputeType compute_ = ComputeType::kF32;
  std::vector<int32_t> order_;
  std::unique_ptr<DeviceBuffer<int32_t>> device_order_, device_places_;
  std::unique_ptr<const BlockedFactor> factor_;
  std::unique_ptr<const BlockedHessian> hessian_;
  std::unique_ptr<DeviceMatrix> column_weights_;
  double damping_used_ = 0;
  int damping_retries_ = 0;
  int64_t num_dead_columns_ = 0;
};

// What happened to a linear; it ends in the job's report.
struct LinearRecord {
  std::string method;                // what made the codes, after any fallback
  double relative_weight_error = 0;  // |Q(W) - W|^2 / |W|^2
  double square = 0;                 // |W|^2
  // tr(dW H dW^T) with the damped H, the squared output error per token: GPTQ's own loss, the sum
  // of squared scaled errors, less what refinement gained; of 8-bit floats, which are rounded to
  // nearest whatever the method, what it is when their errors do not depend on each other, sum of
  // H_kk dW_nk^2. 0 without a factor of H.
  double calibrated_error = 0;
  double refinement_gain = 0;  // what refinement took off it
  double damping = 0;
  int damping_retries = 0;
  int64_t num_dead_columns = 0;
  std::string note;  // one sentence when something was out of the ordinary

  // Takes in the record of other rows of the same linear.
  void AddRows(const LinearRecord& rows);
};

// A linear on a grid, in host memory. Value [n, k] = scale[n, k / group] * (code[n, k] - zero).
struct QuantizedLinear {
  int64_t out_features = 0;
  int64_t in_features = 0;
  GridSpec grid;
  std::vector<uint8_t> codes;  // [out, in]
  Matrix scales;               // [out, groups], snapped
  Matrix zeros;                // [out, groups], integers; empty (0 x 0) when symmetric
  LinearRecord record;
};

// A linear in blocks of a GGUF type, in host memory.
struct BlockLinear {
  std::string bytes;  // its rows, type.RowBytes(in_features) each
  LinearRecord record;
};

class Quantizer {
 public:
  virtual ~Quantizer() = default;
  // What the linears with one input share, from the sum of x x^T over `num_tokens` tokens (lower
  // triangle); null for a method that takes none.
  virtual absl::StatusOr<std::shared_ptr<const InputStatistics>> Prepare(
      Device* /*device*/, std::unique_ptr<DeviceMatrix> /*gram*/, int64_t /*num_tokens*/,
      ComputeType /*compute*/) const {
    return nullptr;
  }
  // `weight` [out, in] in device memory; finite. `statistics` may be null unless the Def needs
  // calibration. Returns one entry a grid, in order. The grids' group sizes divide in_features.
  virtual absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, DeviceView<const float> weight, const InputStatistics* statistics,
      absl::Span<const GridSpec> grids) const = 0;
  // The same in blocks: one entry a type, in order. The types have a shape, and their blocks divide
  // in_features.
  virtual absl::StatusOr<std::vector<BlockLinear>> QuantizeToBlocks(
      Device* device, DeviceView<const float> weight, const InputStatistics* statistics,
      absl::Span<const GgufTypeDef* const> types, GgufFit fit) const = 0;
};

// Whether the scales of a grid or block are searched for; else they follow from its extremes. For
// every method that rounds.
inline constexpr OptionDef kScaleSearch = {
    .name = "scale-search",
    .type = OptionDef::Type::kFlag,
    .default_value = "true",
    .help = "scales by search; without it from the largest weight alone",
};

struct LayerRequest;
struct LayerResult;

struct QuantizerDef {
  absl::string_view name;
  absl::string_view help;  // one line
  // What calibration has to collect for it (evidence/collectors.def).
  absl::Span<const absl::string_view> evidence;
  // All that can be set of it, sorted by name. They are in the cache keys of what it makes.
  absl::Span<const OptionDef> options;
  // One of the two: of a method that sees one linear at a time, or the whole layer.
  std::unique_ptr<Quantizer> (*make)(const OptionValues& options) = nullptr;
  absl::StatusOr<LayerResult> (*quantize_layer)(const LayerRequest& request) = nullptr;
  // Whether dense tensors of a layer change too (LayerResult::edits).
  bool edits_tensors = false;

  bool needs_calibration() const { return !evidence.empty(); }
};

// Sorted by name.
absl::Span<const QuantizerDef* const> Quantizers();
// INVALID_ARGUMENT "METHOD_UNKNOWN" lists the names.
absl::StatusOr<const QuantizerDef*> FindQuantizer(absl::string_view name);

}  // namespace lwq
