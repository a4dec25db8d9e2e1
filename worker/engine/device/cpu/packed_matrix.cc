#include "worker/engine/device/cpu/packed_matrix.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {
namespace {

// Outputs in one panel. oneDNN's AVX2 product packs its operands, which is up to twice as fast,
// only where 1 / rows + 1 / columns is below .0038: kMaxTileRows x 512 is.
constexpr int64_t kPanel = 512;
// With native BF16 a panel of 512 fills the second-level cache and leaves no room for rows.
constexpr int64_t kBF16Panel = 128;
constexpr int64_t kBF16Slab = 704;
constexpr int64_t kSlabStep = 64;
constexpr size_t kAlignment = 64;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::vector<Slab> CutIntoSlabs(int64_t k, bool bf16) {
  if (!bf16 || k <= kBF16Slab) return {{0, k}};
  const int64_t even = CeilDiv(k, CeilDiv(k, kBF16Slab));
  const int64_t size = CeilDiv(even, kSlabStep) * kSlabStep;
  std::vector<Slab> slabs;
  for (int64_t begin = 0; begin < k; begin += size) {
    slabs.push_back({begin, std::min(size, k - begin)});
  }
  return slabs;
}

void* HostBuffer::Reserve(size_t bytes) {
  if (bytes > capacity_ || data_ == nullptr) {
    data_.reset();
    data_.reset(static_cast<uint8_t*>(AllocateHost(bytes)));
    capacity_ = data_ == nullptr ? 0 : bytes;
  }
  return data_.get();
}

absl::Status PackedMatrix::Resize(OnednnGemm& gemm, int64_t outputs, int64_t k, bool bf16) {
  panels_.clear();
  offsets_.clear();
  slabs_ = CutIntoSlabs(k, bf16);
  bf16_ = bf16;
  bytes_ = 0;
  const int64_t most = bf16 ? kBF16Panel : kPanel;
  for (int64_t begin = 0; begin < outputs; begin += most) {
    const int64_t size = std::min(most, outputs - begin);
    panels_.push_back({static_cast<int64_t>(panels_.size()), begin, size});
    for (const Slab& slab : slabs_) {
      LWQ_ASSIGN_OR_RETURN(const size_t bytes, gemm.PackedBytes(size, slab.size, bf16));
      offsets_.push_back(bytes_);
      bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
  }
  data_ = static_cast<uint8_t*>(memory_.Reserve(bytes_));
  if (data_ != nullptr) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for a packed matrix of ", outputs, " x ", k));
}

absl::Status PackedMatrix::Pack(OnednnGemm& gemm, const Panel& panel,
                                const OnednnGemm::PackSource& b) const {
  for (size_t s = 0; s < slabs_.size(); ++s) {
    OnednnGemm::PackSource part = b;
    part.data =
        static_cast<const uint8_t*>(b.data) + slabs_[s].begin * b.k_stride * (b.bf16 ? 2 : 4);
    LWQ_RETURN_IF_ERROR(gemm.Pack(part, panel.size, slabs_[s].size, bf16_, Data(panel, s)));
  }
  return absl::OkStatus();
}

float* ThreadTile(int which) {
  static thread_local Matrix tiles[2] = {{kMaxTileRows, kPanel}, {kMaxTileRows, kPanel}};
  return tiles[which].data();
}

absl::Status Multiply(OnednnGemm& gemm, const Operand& a, int64_t row, int64_t rows,
                      const PackedMatrix& b, absl::Span<const PackedMatrix::Panel> panels,
                      float* result) {
  if (result == nullptr) return absl::ResourceExhaustedError("no memory for a product's tile");
  const size_t last = b.slabs().size() - 1;
  bool written = false;
  for (size_t s = 0; s <= last; ++s) {
    const Slab& slab = b.slabs()[s];
    if (slab.begin + slab.size <= a.first && s < last) continue;
    const auto update = written ? GemmShape::Update::kAdd : GemmShape::Update::kAssign;
    written = true;
    float* sums = result;
    for (const PackedMatrix::Panel& panel : panels) {
      const GemmShape shape{.m = rows,
                            .n = panel.size,
                            .k = slab.size,
                            .a_row_stride = a.StrideOf(slab),
                            .c_stride = panel.size,
                            .bf16 = a.bf16,
                            .packed_b = true,
                            .update = update};
      LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, gemm.Find(shape));
      LWQ_RETURN_IF_ERROR(OnednnGemm::Run(*kernel, a.At(row, slab), b.Data(panel, s), sums));
      sums += rows * panel.size;
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
