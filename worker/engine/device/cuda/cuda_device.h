// NVIDIA GPUs: cuBLAS for products, cuSOLVER for factors, kernels of our own for the rest. All
// operations run on one stream in the order of the calls; a call returns as soon as its work is
// queued. Results are the same bits for the same calls on one model of GPU with one version of
// cuBLAS, which is what the numerics class names.
#pragma once

#include <memory>
#include <string>

#include "base/thread_pool.h"
#include "worker/engine/device/cuda/blas.h"
#include "worker/engine/device/cuda/deferred_checks.h"
#include "worker/engine/device/cuda/device_pool.h"
#include "worker/engine/device/cuda/prepared.h"
#include "worker/engine/device/cuda/solver.h"
#include "worker/engine/device/cuda/transfers.h"
#include "worker/engine/device/device.h"

namespace lwq {

struct CudaOptions {
  int ordinal = 0;
  int host_threads = 1;
  int64_t memory_limit_bytes = 0;  // 0: nine tenths of what is free
  // The ring that uploads go through; as much again in pinned host memory.
  int num_upload_slots = 4;
  int64_t upload_slot_bytes = int64_t{32} << 20;
  int64_t blas_workspace_bytes = int64_t{32} << 20;
};

class CudaDevice : public Device {
 public:
  // DEVICE_MISSING where there is no such GPU, DEVICE_UNAVAILABLE where it is too old.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(const CudaOptions& options);
  ~CudaDevice() override;

  // cuda_device.cc
  absl::string_view name() const override { return name_; }
  std::string Description() const override;
  std::string NumericsClass() const override;
  bool Supports(ComputeType) const override { return true; }
  ThreadPool& host_threads() override { return host_threads_; }
  // Without what the device holds itself: workspaces and the ring of the uploads.
  int64_t memory_limit_bytes() const override { return pool_->limit_bytes() - own_bytes_; }
  bool Lost() override;
  int64_t used_bytes() const { return pool_->used_bytes(); }
  int64_t limit_bytes() const { return pool_->limit_bytes(); }
  absl::Status Synchronize() override;
  void ReleaseScratch() override;
  absl::Status Widen(DeviceView<const BF16> from, DeviceView<float> to) override;
  absl::Status Widen(DeviceView<const F16> from, DeviceView<float> to) override;
  absl::Status GatherColumns(DeviceView<const float> from, DeviceSpan<const int32_t> columns,
                             DeviceView<float> to) override;
  absl::Status GatherColumns(DeviceView<const uint8_t> from, DeviceSpan<const int32_t> columns,
                             DeviceView<uint8_t> to) override;
  absl::Status CheckFinite(absl::string_view what, DeviceView<const float> x) override;

  // cuda_products.cc
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

  // cuda_decoder_ops.cc
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

  // cuda_expert_ops.cc
  absl::Status ChooseExperts(DeviceView<const float> logits, bool normalized,
                             DeviceView<int32_t> chosen, DeviceView<float> share) override;
  absl::Status GatherRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                          DeviceView<float> to) override;
  absl::Status ScatterAddRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                              DeviceSpan<const float> scale, DeviceView<float> to) override;
  absl::Status SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x) override;

  // cuda_quantize.cc
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
  absl::Status ScaleAndMirror(float factor, DeviceView<float> a) override;
  absl::Status PermuteLower(DeviceView<const float> a, DeviceSpan<const int32_t> order,
                            DeviceView<float> out) override;
  absl::Status InverseCholesky(DeviceView<float> h) override;
  absl::Status GptqBlock(const GptqColumns& block) override;
  absl::Status RefineBlock(const RefinementBlock& block) override;

 private:
  CudaDevice(const CudaOptions& options, std::string description, std::string numerics_class);

  // cuda_device.cc
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes) override;
  absl::Status UploadBytes(HostView<const uint8_t> host, DeviceView<uint8_t> device) override;
  absl::Status DownloadBytes(DeviceView<const uint8_t> device, HostView<uint8_t> host) override;
  absl::Status CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) override;
  absl::Status ZeroBytes(DeviceView<uint8_t> m) override;
  template <typename T>
  absl::Status Gather(DeviceView<const T> from, DeviceSpan<const int32_t> columns,
                      DeviceView<T> to);
  cudaStream_t stream() const { return pool_->stream(); }

  // cuda_expert_ops.cc
  // The place for the check of `count` numbers of rows, each to lie in [0, limit).
  absl::StatusOr<cuda::DeferredChecks::Place> CheckRowsLater(int64_t count, int64_t expected,
                                                             int64_t limit);

  // cuda_products.cc
  absl::StatusOr<cuda::TypedMatrix> NewTyped(int64_t rows, int64_t cols, ComputeType type);
  absl::Status Convert(DeviceView<const float> from, const cuda::TypedMatrix& to);
  // y = alpha x weight^T + beta y.
  absl::Status Multiply(float alpha, DeviceView<const float> x, const PreparedWeight& weight,
                        float beta, DeviceView<float> y);
  absl::Status Multiply(float alpha, const PreparedInput& x, const PreparedWeight& weight,
                        float beta, DeviceView<float> y);
  // Starts y with the bias where there is one; the beta for the product that follows.
  absl::StatusOr<float> StartWith(DeviceSpan<const float> bias, DeviceView<float> y);

  const std::string name_, description_, numerics_class_;
  ThreadPool host_threads_;
  std::shared_ptr<cuda::DevicePool> pool_;
  std::unique_ptr<cuda::Transfers> transfers_;
  std::unique_ptr<cuda::DeferredChecks> checks_;
  std::unique_ptr<cuda::Blas> blas_;
  std::unique_ptr<cuda::Solver> solver_;
  int64_t own_bytes_ = 0;
};

}  // namespace lwq
