// A linear on a grid while its quantizer works on it: in device memory, and read back once.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

struct DeviceLinear {
  // Room for a weight of `rows` x `cols` on `grid`: nothing has a value yet.
  static absl::StatusOr<DeviceLinear> Create(Device* device, int64_t rows, int64_t cols,
                                             const GridSpec& grid);
  // Empty on a symmetric grid.
  DeviceView<float> zeros_view() const {
    return zeros == nullptr ? DeviceView<float>() : zeros->view();
  }

  GridSpec grid;
  std::unique_ptr<DeviceBuffer<uint8_t>> codes;      // [out, in]
  std::unique_ptr<DeviceMatrix> scales;              // [out, groups]
  std::unique_ptr<DeviceMatrix> zeros;               // the same shape; null when symmetric
  std::unique_ptr<DeviceBuffer<double>> loss, gain;  // [1, out]: GPTQ's and refinement's, or null
};

// The codes, scales and zeros in host memory, and a record with the errors: of `weight` [out, in],
// of which `linear` was made, and, where there is a loss, the calibrated one. All is computed on
// the device first; the reads at the end are where what went wrong on the way is found at the
// latest.
absl::StatusOr<QuantizedLinear> ReadBack(Device* device, DeviceView<const float> weight,
                                         const DeviceLinear& linear);

}  // namespace lwq
