#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cuda/column_kernels.h"
#include "worker/engine/device/cuda/cuda_device.h"
#include "worker/engine/device/cuda/device_views.h"
#include "worker/engine/device/cuda/element_kernels.h"
#include "worker/engine/device/cuda/fit_kernels.h"
#include "worker/engine/device/cuda/row_kernels.h"
#include "worker/engine/device/cuda/tile_kernels.h"

namespace lwq {

using cuda::SpanOf;
using cuda::StatusOf;
using cuda::ViewOf;

namespace {

cuda::GroupedGrid GroupsOf(const GridSpec& grid, int64_t in_features) {
  return {grid.GroupSizeFor(in_features), grid.symmetric, SymmetricZero(grid.bits),
          LargestCode(grid.bits)};
}

absl::Status CheckWidth(int64_t cols) {
  if (cols <= cuda::kMostColumns) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a block of ", cols, " columns, at most ",
                                                 cuda::kMostColumns, " on this device"));
}

}  // namespace

absl::Status CudaDevice::FitGrid(DeviceView<const float> weight, const GridSpec& grid,
                                 DeviceSpan<const float> column_weight, DeviceView<float> scales,
                                 DeviceView<float> zeros) {
  const cuda::FitNumbers numbers{grid.bits, grid.symmetric, grid.search,
                                 grid.GroupSizeFor(weight.cols)};
  return StatusOf(cuda::FitGrid(stream(), ViewOf(weight), numbers, ShrinkSweep(grid.bits),
                                SpanOf(column_weight), ViewOf(scales), ViewOf(zeros)),
                  "fitting grids");
}

absl::Status CudaDevice::RoundToGrid(DeviceView<const float> weight, const GridSpec& grid,
                                     DeviceView<const float> scales, DeviceView<const float> zeros,
                                     DeviceView<uint8_t> codes) {
  return StatusOf(cuda::RoundToGrid(stream(), ViewOf(weight), GroupsOf(grid, weight.cols),
                                    ViewOf(scales), ViewOf(zeros), ViewOf(codes)),
                  "rounding to grids");
}

absl::Status CudaDevice::UnpackCodes(DeviceView<const uint8_t> packed, int bits,
                                     DeviceView<uint8_t> codes) {
  LWQ_RETURN_IF_ERROR(CheckPacked(packed, bits, codes));
  return StatusOf(cuda::UnpackCodes(stream(), ViewOf(packed), bits, ViewOf(codes)),
                  "unpacking codes");
}

absl::Status CudaDevice::Dequantize(DeviceView<const uint8_t> codes, const GridSpec& grid,
                                    DeviceView<const float> scales, DeviceView<const float> zeros,
                                    DeviceView<float> weight) {
  return StatusOf(cuda::Dequantize(stream(), ViewOf(codes), GroupsOf(grid, weight.cols),
                                   ViewOf(scales), ViewOf(zeros), ViewOf(weight)),
                  "dequantizing");
}

absl::Status CudaDevice::DequantizeBlocks(DeviceView<const uint8_t> blocks,
                                          const BlockLayout& layout, DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckBlocks(blocks, layout, weight));
  return StatusOf(cuda::DequantizeBlocks(stream(), ViewOf(blocks), layout, ViewOf(weight)),
                  "dequantizing blocks");
}

absl::Status CudaDevice::DequantizeE4M3(DeviceView<const uint8_t> codes,
                                        DeviceView<const float> scales, DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckE4M3(codes, scales, weight));
  return StatusOf(cuda::DequantizeE4M3(stream(), ViewOf(codes), ViewOf(scales), ViewOf(weight)),
                  "dequantizing 8-bit floats");
}

absl::Status CudaDevice::GridError(DeviceView<const float> weight, DeviceView<const uint8_t> codes,
                                   const GridSpec& grid, DeviceView<const float> scales,
                                   DeviceView<const float> zeros, DeviceSpan<double> error,
                                   DeviceSpan<double> square) {
  LWQ_RETURN_IF_ERROR(CheckShape("codes", codes, weight.rows, weight.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' errors", error.size, weight.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' squares", square.size, weight.rows));
  return StatusOf(
      cuda::GridError(stream(), ViewOf(weight), ViewOf(codes), GroupsOf(grid, weight.cols),
                      ViewOf(scales), ViewOf(zeros), SpanOf(error), SpanOf(square)),
      "errors of grids");
}

absl::Status CudaDevice::ScaleAndMirror(float factor, DeviceView<float> a) {
  LWQ_RETURN_IF_ERROR(CheckShape("symmetric matrix", a, a.rows, a.rows));
  return StatusOf(cuda::ScaleAndMirror(stream(), factor, ViewOf(a)), "mirroring a matrix");
}

absl::Status CudaDevice::PermuteLower(DeviceView<const float> a, DeviceSpan<const int32_t> order,
                                      DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("permuted matrix", a, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("its permutation", out, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("order", order.size, a.rows));
  return StatusOf(cuda::PermuteLower(stream(), ViewOf(a), SpanOf(order), ViewOf(out)),
                  "permuting a matrix");
}

absl::Status CudaDevice::InverseCholesky(DeviceView<float> h) {
  if (h.cols != h.rows) {
    return Failure(reasons::kShape,
                   absl::StrCat("factoring a matrix that is not square: ", h.rows, " x ", h.cols));
  }
  return solver_->InverseCholesky(ViewOf(h));
}

absl::Status CudaDevice::GptqBlock(const GptqColumns& block) {
  LWQ_RETURN_IF_ERROR(CheckWidth(block.w.cols));
  return StatusOf(cuda::GptqBlock(stream(), ViewOf(block.w), ViewOf(block.u),
                                  GroupsOf(block.grid, block.in_features), ViewOf(block.scales),
                                  ViewOf(block.zeros), SpanOf(block.columns), ViewOf(block.codes),
                                  ViewOf(block.error), SpanOf(block.loss)),
                  "a block of GPTQ");
}

absl::Status CudaDevice::RefineBlock(const RefinementBlock& block) {
  LWQ_RETURN_IF_ERROR(CheckWidth(block.residual.cols));
  return StatusOf(cuda::RefineBlock(stream(), ViewOf(block.residual), ViewOf(block.h),
                                    GroupsOf(block.grid, block.residual.cols), block.refit_scales,
                                    ViewOf(block.scales), ViewOf(block.zeros), ViewOf(block.codes),
                                    ViewOf(block.change), SpanOf(block.gain)),
                  "a refinement");
}

}  // namespace lwq
