// The state behind the CPU device's products. Private to device/cpu.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/onednn_gemm.h"

namespace lwq {

struct CpuDevice::Products {
  OnednnGemm gemm;
  std::vector<uint16_t> rounded;  // BF16 copy of a call's inputs, kept for the next call
  Matrix widened;                 // a dense F32 copy of them: strided, or rounded without BF16
};

}  // namespace lwq
