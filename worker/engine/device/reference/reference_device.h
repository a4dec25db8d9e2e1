// The judge: every operation written as its definition, scalar, sums in double, one thread. Slow on
// purpose. Each other device is tested against it (tests/conformance/device_ops_test.cc).
#pragma once

#include "base/thread_pool.h"
#include "worker/engine/device/device.h"
#include "worker/engine/device/host_space.h"

namespace lwq {

class ReferenceDevice : public Device {
 public:
  ReferenceDevice() : ReferenceDevice(HostSpace(0)) {}
  // With HostSpace(HostSpace::kFarAway) it computes the same in memory that faults wherever host
  // and device memory are confused.
  explicit ReferenceDevice(HostSpace space) : space_(space) {}

  // reference_device.cc
  absl::string_view name() const override { return "reference"; }
  std::string Description() const override;
  std::string NumericsClass() const override;
  bool Supports(ComputeType type) const override;
  ThreadPool& host_threads() override { return one_thread_; }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::Status Widen(DeviceView<const BF16> from, DeviceView<float> to) override;
  absl::Status Widen(DeviceView<const F16> from, DeviceView<float> to) override;
  absl::Status GatherColumns(DeviceView<const float> from, DeviceSpan<const int32_t> columns,
                             DeviceView<float> to) override;
  absl::Status GatherColumns(DeviceView<const uint8_t> from, DeviceSpan<const int32_t> columns,
                             DeviceView<uint8_t> to) override;
  absl::Status CheckFinite(absl::string_view what, DeviceView<const float> x) override;

  // reference_products.cc
  absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareWeight(DeviceView<const float> weight,
                                                                ComputeType type) override;
  absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareTransposed(DeviceView<const float> b,
                                                                    ComputeType type) override;
  absl::StatusOr<std::unique_ptr<PreparedInput>> NewInput(int64_t rows, int64_t features,
                                                          ComputeType type) override;
  absl::Status SetColumns(DeviceView<const float> values, int64_t first,
                          PreparedInput& input) override;
  absl::Status Linear(DeviceView<const float> x, BiasedWeight weight, DeviceView<float> y) override;
  absl::Status Linear(const PreparedInput& x, BiasedWeight weight, DeviceView<float> y) override;
  absl::Status AddLinear(DeviceView<const float> x, BiasedWeight weight,
                         DeviceView<float> y) override;
  absl::Status GatedLinear(DeviceView<const float> x, BiasedWeight gate, BiasedWeight up,
                           Activation activation, DeviceView<float> y) override;
  absl::Status SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                              DeviceView<float> y) override;
  absl::Status SubtractLinear(DeviceView<const float> x, const PreparedWeight& weight,
                              DeviceView<float> y) override;
  absl::Status SubtractProduct(DeviceView<const float> a, DeviceView<const float> b,
                               DeviceView<float> c) override;
  absl::Status AccumulateGram(DeviceView<const float> x, ComputeType type,
                              DeviceView<float> gram) override;

  // reference_decoder_ops.cc
  absl::Status RmsNorm(DeviceView<const float> x, DeviceSpan<const float> weight, float epsilon,
                       DeviceView<float> out) override;
  absl::StatusOr<std::unique_ptr<DeviceBatch>> NewBatch(
      absl::Span<const Segment> segments, absl::Span<const int32_t> positions) override;
  absl::StatusOr<std::unique_ptr<RopeTable>> NewRopeTable(const RopeSettings& settings,
                                                          int64_t num_positions) override;
  absl::Status Rope(const DeviceBatch& batch, const RopeTable& table, DeviceView<float> x) override;
  absl::Status Attention(DeviceView<const float> q, DeviceView<const float> k,
                         DeviceView<const float> v, const DeviceBatch& batch,
                         const AttentionShape& shape, DeviceView<float> out) override;
  absl::Status Gate(DeviceView<const float> gate, DeviceView<const float> up, Activation activation,
                    DeviceView<float> out) override;
  absl::Status SoftCap(float cap, DeviceView<float> x) override;
  absl::Status RoundRows(ActivationRule rule, DeviceView<float> x) override;
  absl::Status Add(DeviceView<const float> x, DeviceView<float> y) override;
  absl::Status Subtract(DeviceView<const float> a, DeviceView<const float> b,
                        DeviceView<float> out) override;
  absl::Status LogSoftmax(DeviceView<float> logits) override;
  absl::Status KlDivergence(DeviceView<const float> source, DeviceView<const float> candidate,
                            DeviceSpan<double> kl) override;
  absl::Status SumLogits(DeviceView<const float> logits, int64_t first_token,
                         const LogitSums& sums) override;
  absl::Status SumLogitGaps(DeviceView<const float> source, DeviceSpan<const float> source_top,
                            DeviceView<const float> candidate, int64_t first_token,
                            const LogitGaps& gaps) override;
  absl::Status Pick(DeviceView<const float> m, DeviceSpan<const int32_t> rows,
                    DeviceSpan<const int32_t> columns, DeviceSpan<float> out) override;
  absl::Status RowCosine(DeviceView<const float> x, DeviceView<const float> y,
                         DeviceSpan<double> out) override;

  // reference_expert_ops.cc
  absl::Status ChooseExperts(DeviceView<const float> logits, bool normalized,
                             DeviceView<int32_t> chosen, DeviceView<float> share) override;
  absl::Status GatherRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                          DeviceView<float> to) override;
  absl::Status ScatterAddRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                              DeviceSpan<const float> scale, DeviceView<float> to) override;
  absl::Status SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x) override;

  // reference_quantize.cc
  absl::Status FitGrid(DeviceView<const float> weight, const GridSpec& grid,
                       DeviceSpan<const float> column_weight, DeviceView<float> scales,
                       DeviceView<float> zeros) override;
  absl::Status RoundToGrid(DeviceView<const float> weight, const GridSpec& grid,
                           DeviceView<const float> scales, DeviceView<const float> zeros,
                           DeviceView<uint8_t> codes) override;
  absl::Status UnpackCodes(DeviceView<const uint8_t> packed, int bits,
                           DeviceView<uint8_t> codes) override;
  absl::Status Dequantize(DeviceView<const uint8_t> codes, const GridSpec& grid,
                          DeviceView<const float> scales, DeviceView<const float> zeros,
                          DeviceView<float> weight) override;
  absl::Status DequantizeBlocks(DeviceView<const uint8_t> blocks, const BlockLayout& layout,
                                DeviceView<float> weight) override;
  absl::Status DequantizeE4M3(DeviceView<const uint8_t> codes, DeviceView<const float> scales,
                              DeviceView<float> weight) override;
  absl::Status GridError(DeviceView<const float> weight, DeviceView<const uint8_t> codes,
                         const GridSpec& grid, DeviceView<const float> scales,
                         DeviceView<const float> zeros, DeviceSpan<double> error,
                         DeviceSpan<double> square) override;
  absl::Status GptqBlock(const GptqColumns& block) override;

  // reference_refine.cc
  absl::Status RefineBlock(const RefinementBlock& block) override;

  // reference_factor.cc
  absl::Status ScaleAndMirror(float factor, DeviceView<float> a) override;
  absl::Status PermuteLower(DeviceView<const float> a, DeviceSpan<const int32_t> order,
                            DeviceView<float> out) override;
  absl::Status InverseCholesky(DeviceView<float> h) override;

 protected:
  // reference_device.cc. Tests make devices of it that have less memory.
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes) override;

 private:
  absl::Status UploadBytes(HostView<const uint8_t> host, DeviceView<uint8_t> device) override;
  absl::Status DownloadBytes(DeviceView<const uint8_t> device, HostView<uint8_t> host) override;
  absl::Status CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) override;
  absl::Status ZeroBytes(DeviceView<uint8_t> m) override;

  // Row r of a view, for the host.
  template <typename T>
  T* Row(DeviceView<T> view, int64_t r) const {
    return space_.Host(view.data) + r * view.stride;
  }

  const HostSpace space_;
  ThreadPool one_thread_{1};
};

}  // namespace lwq
