// Second moments: x^T x as products of the transposed inputs, packed once on each side, with the
// tiles on and below the diagonal. Left to itself oneDNN would turn and pack its operands anew for
// every tile.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_kernels.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/device/cpu/product_input.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/cpu/transpose.h"

namespace lwq {
namespace {

constexpr int64_t kTokens = 1024;  // packed at once, as F32; twice as many as BF16

class Gram {
 public:
  Gram(ThreadPool* pool, CpuProducts* products, MatrixView gram)
      : pool_(*pool), products_(*products), gram_(gram), cols_(gram.cols) {}

  // Adds the second moments of rows [begin, begin + count) of x.
  absl::Status Add(const Operand& x, int64_t begin, int64_t count) {
    PackedMatrix& packed = products_.packed;
    LWQ_RETURN_IF_ERROR(packed.Resize(products_.gemm, cols_, count, x.bf16));
    LWQ_ASSIGN_OR_RETURN(const void* turned, Turn(x, begin, count));
    LWQ_RETURN_IF_ERROR(RunAll(pool_, static_cast<int64_t>(packed.panels().size()), [&](int64_t i) {
      const PackedMatrix::Panel& panel = packed.panels()[static_cast<size_t>(i)];
      const size_t before = static_cast<size_t>(panel.begin) * (x.bf16 ? 2 : 4);
      return packed.Pack(products_.gemm, panel,
                         {.data = static_cast<const uint8_t*>(x.At(begin, All())) + before,
                          .bf16 = x.bf16,
                          .n_stride = 1,
                          .k_stride = x.StrideOf(All())});
    }));
    const int64_t rows = x.bf16 ? kBF16TileRows : kMaxTileRows;
    const auto panels = absl::MakeConstSpan(packed.panels());
    const size_t together = static_cast<size_t>(x.bf16 ? kBF16PanelsAtOnce : 1);
    std::vector<std::pair<int64_t, absl::Span<const PackedMatrix::Panel>>> tiles;  // first row
    for (size_t p = 0; p < panels.size(); p += together) {
      const auto group = panels.subspan(p, together);
      for (int64_t i = group[0].begin / rows * rows; i < cols_; i += rows) {
        const auto above = [end = i + rows](const PackedMatrix::Panel& q) { return q.begin < end; };
        const auto reached = std::partition_point(group.begin(), group.end(), above);
        tiles.push_back({i, group.first(static_cast<size_t>(reached - group.begin()))});
      }
    }
    const Operand left{turned, cols_, count, x.bf16};
    return RunAll(pool_, static_cast<int64_t>(tiles.size()), [&](int64_t t) -> absl::Status {
      const auto& [i, group] = tiles[static_cast<size_t>(t)];
      const int64_t end = std::min(cols_, i + rows);
      float* sums = ThreadTile(0);
      LWQ_RETURN_IF_ERROR(Multiply(products_.gemm, left, i, end - i, packed, group, sums));
      for (const PackedMatrix::Panel& panel : group) {
        for (int64_t r = i; r < end; ++r, sums += panel.size) {
          AddRow(sums, panel.size, gram_.Row(r) + panel.begin);
        }
      }
      return absl::OkStatus();
    });
  }

  // All columns in one slab: how x is to be rounded.
  Slab All() const { return {0, cols_}; }

 private:
  // The transposed rows [begin, begin + count) of x as a left side, in the slabs of the right one.
  absl::StatusOr<const void*> Turn(const Operand& x, int64_t begin, int64_t count) {
    void* to = products_.transposed.Reserve(static_cast<size_t>(cols_ * count) * (x.bf16 ? 2 : 4));
    if (to == nullptr) return absl::ResourceExhaustedError("no memory for a transpose");
    pool_.ParallelForBlocks(cols_, 64, [&](int64_t first, int64_t last) {
      for (const Slab& slab : products_.packed.slabs()) {
        const void* from = x.At(begin + slab.begin, All());
        if (x.bf16) {
          Transpose(static_cast<const uint16_t*>(from) + first, cols_, slab.size, last - first,
                    static_cast<uint16_t*>(to) + cols_ * slab.begin + first * slab.size, slab.size);
        } else {
          Transpose(static_cast<const float*>(from) + first, x.stride, slab.size, last - first,
                    static_cast<float*>(to) + first * slab.size, slab.size);
        }
      }
    });
    return to;
  }

  ThreadPool& pool_;
  CpuProducts& products_;
  const MatrixView gram_;
  const int64_t cols_;
};

}  // namespace

absl::Status CpuDevice::AccumulateGram(DeviceView<const float> x, ComputeType type,
                                       DeviceView<float> gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  if (x.rows == 0) return absl::OkStatus();
  Gram sum(&pool_, products_.get(), Host(gram));
  LWQ_ASSIGN_OR_RETURN(const Operand source,
                       RoundedInput(pool_, Host(x), type, {sum.All()}, *products_));
  const int64_t tokens = source.bf16 ? 2 * kTokens : kTokens;
  for (int64_t begin = 0; begin < x.rows; begin += tokens) {
    LWQ_RETURN_IF_ERROR(sum.Add(source, begin, std::min(tokens, x.rows - begin)));
  }
  return absl::OkStatus();
}

}  // namespace lwq
