// Grids and codes to and from a device, for the tests of what works on them.
#pragma once

#include <memory>
#include <vector>

#include "tests/worker/engine/quant/quant_problem.h"

namespace lwq::testing {

struct Grids {
  Matrix scales;
  Matrix zeros;
};

// `codes` is [any, cols].
inline std::unique_ptr<DeviceBuffer<uint8_t>> CodesOn(Device& device,
                                                      const std::vector<uint8_t>& codes,
                                                      int64_t cols) {
  return BufferOn<uint8_t>(device,
                           {codes.data(), static_cast<int64_t>(codes.size()) / cols, cols, cols});
}

inline Grids Fit(Device* device, ConstMatrixView weight, const GridSpec& grid,
                 const Matrix* importance) {
  const int64_t groups = grid.NumGroups(weight.cols);
  const auto scales = *device->NewMatrix(weight.rows, groups);
  const auto zeros = *device->NewMatrix(weight.rows, groups);
  EXPECT_OK(device->FillZero(zeros->view()));
  std::unique_ptr<DeviceMatrix> h;
  if (importance != nullptr) h = OnDevice(device, importance->view());
  EXPECT_OK(device->FitGrid(OnDevice(device, weight)->view(), grid,
                            h == nullptr ? DeviceSpan<const float>() : h->span(), scales->view(),
                            zeros->view()));
  return {OnHost(*device, scales->view()), OnHost(*device, zeros->view())};
}

inline std::vector<uint8_t> Round(Device* device, ConstMatrixView weight, const GridSpec& grid,
                                  const Grids& grids) {
  const auto codes = *device->NewBuffer<uint8_t>(weight.rows, weight.cols);
  EXPECT_OK(device->RoundToGrid(OnDevice(device, weight)->view(), grid,
                                OnDevice(device, grids.scales.view())->view(),
                                OnDevice(device, grids.zeros.view())->view(), codes->view()));
  return ElementsOf(*device, codes->view());
}

inline Matrix Values(Device* device, const std::vector<uint8_t>& codes, const GridSpec& grid,
                     const Grids& grids, int64_t cols) {
  const auto values = *device->NewMatrix(grids.scales.rows(), cols);
  EXPECT_OK(device->Dequantize(CodesOn(*device, codes, cols)->view(), grid,
                               OnDevice(device, grids.scales.view())->view(),
                               OnDevice(device, grids.zeros.view())->view(), values->view()));
  return OnHost(*device, values->view());
}

}  // namespace lwq::testing
