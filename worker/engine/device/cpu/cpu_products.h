// The state behind the CPU device's products, and how they round their inputs. Private to
// device/cpu.
#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/onednn_gemm.h"
#include "worker/engine/device/cpu/packed_matrix.h"

namespace lwq {

struct CpuProducts {
  OnednnGemm gemm;
  // Kept from call to call, because fresh pages cost as much as a pass over them:
  HostBuffer rounded;     // inputs in BF16
  Matrix widened;         // inputs in F32, dense: strided ones, or rounded without BF16
  HostBuffer transposed;  // inputs the other way, for second moments
  Matrix widened_right;   // the same of a right side
  PackedMatrix packed;    // a right side that serves one product
};

// x as a product's left side: F32 as it is, or a copy of it in `products`, rounded.
absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     absl::Span<const Slab> slabs, CpuProducts& products);

}  // namespace lwq
