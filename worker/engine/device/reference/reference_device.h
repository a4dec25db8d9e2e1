// The judge: every operation written as its definition, scalar, sums in double, one thread. Slow on
// purpose. Each other device is tested against it (tests/conformance/device_ops_test.cc).
#pragma once

#include "base/thread_pool.h"
#include "worker/engine/device/device.h"

namespace lwq {

class ReferenceDevice : public Device {
 public:
  // reference_device.cc
  absl::string_view name() const override { return "reference"; }
  std::string Description() const override;
  std::string NumericsClass() const override;
  bool Supports(ComputeType type) const override;
  ThreadPool& host_threads() override { return one_thread_; }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> NewMatrix(int64_t rows, int64_t cols) override;
  absl::Status Upload(ConstMatrixView host, MatrixView device) override;
  absl::Status Download(ConstMatrixView device, MatrixView host) override;
  absl::Status FillZero(MatrixView m) override;
  absl::Status Copy(ConstMatrixView from, MatrixView to) override;
  absl::Status GatherColumns(ConstMatrixView from, absl::Span<const int32_t> columns,
                             MatrixView to) override;

  // reference_products.cc
  absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareWeight(ConstMatrixView weight,
                                                                ComputeType type) override;
  absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareTransposed(ConstMatrixView b,
                                                                    ComputeType type) override;
  absl::StatusOr<std::unique_ptr<PreparedInput>> NewInput(int64_t rows, int64_t features,
                                                          ComputeType type) override;
  absl::Status SetColumns(ConstMatrixView values, int64_t first, PreparedInput& input) override;
  absl::Status Linear(ConstMatrixView x, BiasedWeight weight, MatrixView y) override;
  absl::Status Linear(const PreparedInput& x, BiasedWeight weight, MatrixView y) override;
  absl::Status AddLinear(ConstMatrixView x, BiasedWeight weight, MatrixView y) override;
  absl::Status GatedLinear(ConstMatrixView x, BiasedWeight gate, BiasedWeight up,
                           MatrixView y) override;
  absl::Status SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                              MatrixView y) override;
  absl::Status SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                              MatrixView y) override;
  absl::Status SubtractProduct(ConstMatrixView a, ConstMatrixView b, MatrixView c) override;
  absl::Status AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) override;

  // reference_decoder_ops.cc
  absl::Status RmsNorm(ConstMatrixView x, const float* weight, float epsilon,
                       MatrixView out) override;
  absl::Status Rope(MatrixView x, int head_dim, absl::Span<const int32_t> positions,
                    const RopeTable& table) override;
  absl::Status Attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
                         absl::Span<const Segment> segments, const AttentionShape& shape,
                         MatrixView out) override;
  absl::Status Add(ConstMatrixView x, MatrixView y) override;
  absl::Status Subtract(ConstMatrixView a, ConstMatrixView b, MatrixView out) override;
  absl::Status LogSoftmax(MatrixView logits) override;
  absl::Status KlDivergence(ConstMatrixView source, ConstMatrixView candidate,
                            absl::Span<double> kl) override;
  absl::Status RowCosine(ConstMatrixView x, ConstMatrixView y, absl::Span<double> out) override;

  // reference_quantize.cc
  absl::Status FitGrid(ConstMatrixView weight, const GridSpec& grid, const float* column_weight,
                       MatrixView scales, MatrixView zeros) override;
  absl::Status RoundToGrid(ConstMatrixView weight, const GridSpec& grid, ConstMatrixView scales,
                           ConstMatrixView zeros, uint8_t* codes) override;
  absl::Status Dequantize(const uint8_t* codes, const GridSpec& grid, ConstMatrixView scales,
                          ConstMatrixView zeros, MatrixView weight) override;
  absl::Status GptqBlock(const GptqColumns& block, absl::Span<double> loss) override;

  // reference_refine.cc
  absl::Status RefineBlock(const RefinementBlock& block, absl::Span<double> gain) override;

  // reference_factor.cc
  absl::Status InverseCholesky(MatrixView h) override;

 private:
  ThreadPool one_thread_{1};
};

}  // namespace lwq
