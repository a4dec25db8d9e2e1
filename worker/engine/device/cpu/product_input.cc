#include "worker/engine/device/cpu/product_input.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/cpu/cpu_kernels.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

constexpr int64_t kRowsAtOnce = 16;

// Writes a matrix's rows into an operand's memory, from column `first` on.
void WriteColumns(ThreadPool& pool, ConstMatrixView x, int64_t first, ComputeType type,
                  absl::Span<const Slab> slabs, const Operand& to, void* memory) {
  pool.ParallelForBlocks(x.rows, kRowsAtOnce, [&](int64_t row, int64_t row_end) {
    for (const Slab& slab : slabs) {
      const int64_t begin = std::max(first, slab.begin);
      const int64_t count = std::min(first + x.cols, slab.begin + slab.size) - begin;
      if (count <= 0) continue;
      for (int64_t r = row; r < row_end; ++r) {
        const float* from = x.Row(r) + (begin - first);
        const int64_t at = to.rows * slab.begin + r * slab.size + (begin - slab.begin);
        if (to.bf16) {
          RoundToBF16Row(from, count, static_cast<uint16_t*>(memory) + at);
        } else if (type == ComputeType::kBF16) {
          RoundThroughBF16(from, count, static_cast<float*>(memory) + at);
        } else {
          std::copy_n(from, count, static_cast<float*>(memory) + at);
        }
      }
    }
  });
}

bool InBF16(ComputeType type) { return type == ComputeType::kBF16 && OnednnGemm::HasNativeBF16(); }

absl::Status NoMemory(int64_t rows, int64_t cols) {
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for a product's input of ", rows, " x ", cols));
}

absl::StatusOr<Operand> CopyOf(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                               absl::Span<const Slab> slabs, CpuProducts& products) {
  Operand to{nullptr, x.rows, x.cols, InBF16(type)};
  void* memory = products.input.Reserve(static_cast<size_t>(x.rows * x.cols) * to.element_size());
  if (memory == nullptr) return NoMemory(x.rows, x.cols);
  to.data = memory;
  WriteColumns(pool, x, 0, type, slabs, to, memory);
  return to;
}

}  // namespace

void RoundThroughBF16(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = BF16ToFloat(FloatToBF16(x[i]));
}

absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     absl::Span<const Slab> slabs, CpuProducts& products) {
  if (type == ComputeType::kF32) return Operand{x.data, x.rows, x.stride, false};
  return CopyOf(pool, x, type, slabs, products);
}

absl::StatusOr<Operand> DenseInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                   absl::Span<const Slab> slabs, CpuProducts& products) {
  if (type == ComputeType::kF32 && x.stride == x.cols) return Operand{x.data, x.rows, x.cols};
  return CopyOf(pool, x, type, slabs, products);
}

absl::StatusOr<std::unique_ptr<CpuInput>> CpuInput::Create(int64_t rows, int64_t features,
                                                           ComputeType type) {
  std::unique_ptr<CpuInput> input(new CpuInput());
  input->type_ = type;
  input->features_ = features;
  input->operand_ = {nullptr, rows, features, InBF16(type), /*first=*/features};
  input->slabs_ = CutIntoSlabs(features, input->operand_.bf16);
  const size_t bytes = static_cast<size_t>(rows * features) * input->operand_.element_size();
  void* memory = input->memory_.Reserve(bytes);
  if (memory == nullptr) return NoMemory(rows, features);
  std::memset(memory, 0, bytes);
  input->operand_.data = memory;
  return input;
}

void CpuInput::SetColumns(ThreadPool& pool, ConstMatrixView values, int64_t first) {
  WriteColumns(pool, values, first, type_, slabs_, operand_, memory_.data());
  operand_.first = std::min(operand_.first, first);
}

}  // namespace lwq
