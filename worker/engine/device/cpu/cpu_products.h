// The state behind the CPU device's products. Private to device/cpu.
#pragma once

#include "worker/engine/device/cpu/onednn_gemm.h"
#include "worker/engine/device/cpu/packed_matrix.h"

namespace lwq {

struct CpuProducts {
  OnednnGemm gemm;
  // Kept from call to call, because fresh pages cost as much as a pass over them:
  HostBuffer input;       // a left side that serves one operation, rounded or dense
  HostBuffer transposed;  // inputs the other way, for second moments
  PackedMatrix packed;    // a right side that serves one product
};

}  // namespace lwq
