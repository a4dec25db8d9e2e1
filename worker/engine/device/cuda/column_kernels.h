// What goes column by column through a block of a weight, each row by itself: GPTQ's loop and the
// refinement of codes. A warp has a row; the row's state lies in shared memory, and the columns
// behind the one at hand are updated by all lanes.
#pragma once

#include "worker/engine/device/cuda/element_kernels.h"
#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

// The widest block whose rows' state the kernels below hold.
constexpr int64_t kMostColumns = 6144;

// See Device::GptqBlock. `columns`: where each column stood in the whole weight.
cudaError_t GptqBlock(cudaStream_t stream, View<float> w, View<const float> u, GroupedGrid grid,
                      View<const float> scales, View<const float> zeros,
                      Span<const int32_t> columns, View<uint8_t> codes, View<float> error,
                      Span<double> loss);

// See Device::RefineBlock.
cudaError_t RefineBlock(cudaStream_t stream, View<const float> residual, View<const float> h,
                        GroupedGrid grid, bool refit_scales, View<float> scales,
                        View<const float> zeros, View<uint8_t> codes, View<float> change,
                        Span<double> gain);

}  // namespace lwq::cuda
