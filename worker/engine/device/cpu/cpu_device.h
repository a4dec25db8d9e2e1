// The CPU device: oneDNN for matrix products, OpenBLAS LAPACK for a factor's blocks, Highway
// kernels for the rest, with the instruction set chosen at run time. Work is cut into fixed tiles
// that the pool's threads take in any order, and each library call runs on one thread, so results
// do not depend on the number of threads.
#pragma once

#include <memory>
#include <string>

#include "base/thread_pool.h"
#include "worker/engine/device/device.h"

namespace lwq {

struct CpuProducts;  // oneDNN's engine and kernels

class CpuDevice : public Device {
 public:
  explicit CpuDevice(int num_threads);
  ~CpuDevice() override;

  // cpu_device.cc
  absl::string_view name() const override { return "cpu"; }
  std::string Description() const override;
  std::string NumericsClass() const override;
  bool Supports(ComputeType type) const override;
  ThreadPool& host_threads() override { return pool_; }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> NewMatrix(int64_t rows, int64_t cols) override;
  absl::Status Upload(ConstMatrixView host, MatrixView device) override;
  absl::Status Download(ConstMatrixView device, MatrixView host) override;
  absl::Status FillZero(MatrixView m) override;
  absl::Status Copy(ConstMatrixView from, MatrixView to) override;
  absl::Status GatherColumns(ConstMatrixView from, absl::Span<const int32_t> columns,
                             MatrixView to) override;

  // cpu_products.cc: oneDNN
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

  // cpu_gram.cc: oneDNN
  absl::Status AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) override;

  // cpu_decoder_ops.cc: Highway
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

  // cpu_quantize.cc: Highway
  absl::Status FitGrid(ConstMatrixView weight, const GridSpec& grid, const float* column_weight,
                       MatrixView scales, MatrixView zeros) override;
  absl::Status RoundToGrid(ConstMatrixView weight, const GridSpec& grid, ConstMatrixView scales,
                           ConstMatrixView zeros, uint8_t* codes) override;
  absl::Status Dequantize(const uint8_t* codes, const GridSpec& grid, ConstMatrixView scales,
                          ConstMatrixView zeros, MatrixView weight) override;
  absl::Status GptqBlock(const GptqColumns& block, absl::Span<double> loss) override;

  // cpu_refine.cc: Highway
  absl::Status RefineBlock(const RefinementBlock& block, absl::Span<double> gain) override;

  // cpu_factor.cc: oneDNN, and OpenBLAS for diagonal blocks
  absl::Status InverseCholesky(MatrixView h) override;

 private:
  ThreadPool pool_;
  std::unique_ptr<CpuProducts> products_;
};

}  // namespace lwq
