// What the CPU device's products share. A right side is packed once, panel by panel of outputs; a
// product is cut into tiles by the shapes alone, each tile one oneDNN call on one thread. Private
// to device/cpu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/onednn_gemm.h"

namespace lwq {

// A matrix in host memory, of F32 or of BF16.
struct Operand {
  const void* data = nullptr;
  int64_t stride = 0;
  bool bf16 = false;

  const void* At(int64_t row, int64_t col) const {
    return static_cast<const uint8_t*>(data) +
           static_cast<size_t>(row * stride + col) * (bf16 ? 2 : 4);
  }
};

// A product's right side, [outputs, k], in the layout that oneDNN multiplies fastest.
class PackedMatrix {
 public:
  struct Panel {
    int64_t begin;  // first output
    int64_t size;   // outputs
    size_t offset;  // bytes into the packed matrix
  };

  // Lays out the panels and takes memory for them, unless what is there is enough.
  absl::Status Resize(OnednnGemm& gemm, int64_t outputs, int64_t k, bool bf16);

  const std::vector<Panel>& panels() const { return panels_; }
  uint8_t* Data(const Panel& panel) const { return data_.get() + panel.offset; }
  size_t size_bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::vector<Panel> panels_;
  size_t bytes_ = 0, capacity_ = 0;
  std::unique_ptr<uint8_t[], Free> data_;
};

// c (+)= a b^T: one tile of a product, by one call on this thread.
struct PanelProduct {
  const void* a;  // [rows, k]
  int64_t rows;
  int64_t k;
  int64_t a_stride;
  bool bf16;
  const PackedMatrix* b;
  const PackedMatrix::Panel* panel;
  int64_t skip = 0;  // outputs of the panel before the first that c takes
  int64_t take;      // outputs that it takes
  float* c;          // [rows, take]
  int64_t c_stride;
};
// At most this many rows.
inline constexpr int64_t kMaxPanelRows = 256;
absl::Status Multiply(OnednnGemm& gemm, const PanelProduct& product, GemmShape::Update update);

struct CpuProducts {
  OnednnGemm gemm;
  // Kept from call to call, because fresh pages cost as much as a pass over them:
  std::vector<uint16_t> rounded;  // inputs in BF16
  Matrix widened;                 // inputs in F32, dense: strided ones, or rounded without BF16
  Matrix transposed;              // inputs the other way, for second moments; F32, or BF16 in pairs
  PackedMatrix packed;            // inputs as a right side, for second moments
};

// x as a product's left side: F32 as it is, or a rounded copy of it in `products`.
absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     CpuProducts& products);

}  // namespace lwq
