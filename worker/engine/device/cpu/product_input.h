// The left sides of products: how inputs are rounded and laid out. Private to device/cpu.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/cpu/packed_matrix.h"
#include "worker/engine/device/device.h"

namespace lwq {

// out = x rounded to BF16 and kept as F32: how BF16 is multiplied without its instructions.
void RoundThroughBF16(const float* x, int64_t n, float* out);

// x rounded for products in `type`: F32 as it lies, or a copy of it in `products`.
absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     absl::Span<const Slab> slabs, CpuProducts& products);

// The same with rows that follow each other, which is what Multiply takes.
absl::StatusOr<Operand> DenseInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                   absl::Span<const Slab> slabs, CpuProducts& products);

// Holds its rounded copy, in the slabs that a weight of as many inputs has.
class CpuInput : public PreparedInput {
 public:
  // RESOURCE_EXHAUSTED when there is no memory.
  static absl::StatusOr<std::unique_ptr<CpuInput>> Create(int64_t rows, int64_t features,
                                                          ComputeType type);
  int64_t rows() const override { return operand_.rows; }
  int64_t features() const override { return features_; }
  ComputeType type() const { return type_; }
  const Operand& operand() const { return operand_; }

  void SetColumns(ThreadPool& pool, ConstMatrixView values, int64_t first);

 private:
  CpuInput() = default;
  ComputeType type_ = ComputeType::kF32;
  int64_t features_ = 0;
  std::vector<Slab> slabs_;
  HostBuffer memory_;
  Operand operand_;  // in memory_
};

}  // namespace lwq
