// A product's right side packed once, panel by panel of outputs, and one tile of such a product:
// one oneDNN call on one thread. Private to device/cpu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/engine/device/cpu/onednn_gemm.h"
#include "worker/engine/tensor/host_memory.h"

namespace lwq {

// Terms [begin, begin + size) of a product's sums.
struct Slab {
  int64_t begin, size;
};
// How sums of k terms are cut: BF16 kernels are a quarter faster on some seven hundred.
std::vector<Slab> CutIntoSlabs(int64_t k, bool bf16);

// A product's left side, [rows, k]: F32 as it lies, or BF16 slab after slab, each dense.
struct Operand {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;  // of F32
  bool bf16 = false;
  int64_t first = 0;  // every term before it is zero: slabs that end there are skipped

  const void* At(int64_t row, const Slab& slab) const {
    if (!bf16) return static_cast<const float*>(data) + row * stride + slab.begin;
    return static_cast<const uint16_t*>(data) + rows * slab.begin + row * slab.size;
  }
  int64_t StrideOf(const Slab& slab) const { return bf16 ? slab.size : stride; }
  size_t element_size() const { return bf16 ? sizeof(uint16_t) : sizeof(float); }
};

// Scratch memory, aligned as matrices are: tiles that are not cost a quarter of BF16's speed.
class HostBuffer {
 public:
  // At least `bytes` bytes, what was there is lost; null when there is no memory.
  void* Reserve(size_t bytes);
  void* data() const { return data_.get(); }

 private:
  size_t capacity_ = 0;
  std::unique_ptr<uint8_t[], HostDeleter> data_;
};

// A product's right side, [outputs, k], in the layout that oneDNN multiplies fastest.
class PackedMatrix {
 public:
  struct Panel {
    int64_t index;
    int64_t begin;  // first output
    int64_t size;   // outputs
  };

  // Lays out panels and slabs and takes memory for them, unless what is there is enough.
  absl::Status Resize(OnednnGemm& gemm, int64_t outputs, int64_t k, bool bf16);

  const std::vector<Panel>& panels() const { return panels_; }
  const std::vector<Slab>& slabs() const { return slabs_; }
  bool bf16() const { return bf16_; }
  size_t size_bytes() const { return bytes_; }
  uint8_t* Data(const Panel& panel, size_t slab) const {
    return data_ + offsets_[static_cast<size_t>(panel.index) * slabs_.size() + slab];
  }
  // Fills one panel from b^T: element (output, term) at output * n_stride + term * k_stride.
  absl::Status Pack(OnednnGemm& gemm, const Panel& panel, const OnednnGemm::PackSource& b) const;

 private:
  std::vector<Panel> panels_;
  std::vector<Slab> slabs_;
  std::vector<size_t> offsets_;  // of each panel's slabs
  bool bf16_ = false;
  size_t bytes_ = 0;
  uint8_t* data_ = nullptr;  // in memory_
  HostBuffer memory_;
};

// Rows of a that one call of Multiply takes at most.
inline constexpr int64_t kMaxTileRows = 1024;
// Rows and panels of a tile of BF16: their sums, one slab of the rows and one panel stay in the
// second-level cache.
inline constexpr int64_t kBF16TileRows = 256;
inline constexpr int64_t kBF16PanelsAtOnce = 4;
// Rows [row, row + rows) of a times some panels of b, on this thread: panel after panel, each
// [rows, panel.size]. Dense: oneDNN has a fast kernel for a packed matrix only where rows follow
// each other. RESOURCE_EXHAUSTED when `result` is null.
absl::Status Multiply(OnednnGemm& gemm, const Operand& a, int64_t row, int64_t rows,
                      const PackedMatrix& b, absl::Span<const PackedMatrix::Panel> panels,
                      float* result);
// Room for one result, this thread's; there are two. Null when there is no memory.
float* ThreadTile(int which);

}  // namespace lwq
