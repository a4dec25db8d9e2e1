// Second moments: x^T x as products of the transposed inputs, packed once on each side, with the
// tiles on and below the diagonal. Left to itself oneDNN would turn and pack its operands anew for
// every tile.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/cpu/run_all.h"

namespace lwq {
namespace {

constexpr int64_t kTokens = 1024;   // summed by one call
constexpr int64_t kTileRows = 256;  // columns of x on the left of one call

// to [cols, rows] = from^T, for columns [begin, end) of from.
template <typename T>
void Transpose(const T* from, int64_t stride, int64_t rows, int64_t begin, int64_t end, T* to) {
  constexpr int64_t kSquare = 32;
  for (int64_t r = 0; r < rows; r += kSquare) {
    const int64_t r_end = std::min(rows, r + kSquare);
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t i = r; i < r_end; ++i) to[c * rows + i] = from[i * stride + c];
    }
  }
}

class Gram {
 public:
  Gram(ThreadPool* pool, CpuProducts* products, MatrixView gram)
      : pool_(*pool), products_(*products), gram_(gram), cols_(gram.cols) {}

  // Adds the second moments of rows [begin, begin + count) of x.
  absl::Status Add(const Operand& x, int64_t begin, int64_t count) {
    LWQ_RETURN_IF_ERROR(Turn(x, begin, count));
    LWQ_RETURN_IF_ERROR(Pack(x, begin, count));
    std::vector<std::pair<int64_t, const PackedMatrix::Panel*>> tiles;  // first row, panel
    for (int64_t i = 0; i < cols_; i += kTileRows) {
      const int64_t end = std::min(cols_, i + kTileRows);
      for (const PackedMatrix::Panel& panel : products_.packed.panels()) {
        if (panel.begin < end) tiles.push_back({i, &panel});
      }
    }
    const Operand left{products_.transposed.data(), count, x.bf16};
    return RunAll(pool_, static_cast<int64_t>(tiles.size()), [&](int64_t t) {
      const auto& [i, panel] = tiles[static_cast<size_t>(t)];
      return Multiply(products_.gemm,
                      {.a = left.At(i, 0),
                       .rows = std::min(kTileRows, cols_ - i),
                       .k = count,
                       .a_stride = count,
                       .bf16 = x.bf16,
                       .b = &products_.packed,
                       .panel = panel,
                       .take = panel->size,
                       .c = gram_.Row(i) + panel->begin,
                       .c_stride = gram_.stride},
                      GemmShape::Update::kAdd);
    });
  }

 private:
  absl::Status Turn(const Operand& x, int64_t begin, int64_t count) {
    Matrix& to = products_.transposed;
    if (to.size() < cols_ * count) to = Matrix(cols_, count);
    if (to.data() == nullptr) return absl::ResourceExhaustedError("no memory for a transpose");
    pool_.ParallelForBlocks(cols_, 64, [&](int64_t first, int64_t last) {
      if (x.bf16) {
        Transpose(static_cast<const uint16_t*>(x.At(begin, 0)), x.stride, count, first, last,
                  reinterpret_cast<uint16_t*>(to.data()));
      } else {
        Transpose(static_cast<const float*>(x.At(begin, 0)), x.stride, count, first, last,
                  to.data());
      }
    });
    return absl::OkStatus();
  }

  absl::Status Pack(const Operand& x, int64_t begin, int64_t count) {
    LWQ_RETURN_IF_ERROR(products_.packed.Resize(products_.gemm, cols_, count, x.bf16));
    const auto& panels = products_.packed.panels();
    return RunAll(pool_, static_cast<int64_t>(panels.size()), [&](int64_t i) {
      const PackedMatrix::Panel& panel = panels[static_cast<size_t>(i)];
      return products_.gemm.Pack({.data = x.At(begin, panel.begin),
                                  .bf16 = x.bf16,
                                  .n_stride = 1,
                                  .k_stride = x.stride},
                                 panel.size, count, x.bf16, products_.packed.Data(panel));
    });
  }

  ThreadPool& pool_;
  CpuProducts& products_;
  const MatrixView gram_;
  const int64_t cols_;
};

}  // namespace

absl::Status CpuDevice::AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  if (x.rows == 0) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(const Operand source, RoundedInput(pool_, x, type, *products_));
  Gram sum(&pool_, products_.get(), gram);
  for (int64_t token = 0; token < x.rows; token += kTokens) {
    LWQ_RETURN_IF_ERROR(sum.Add(source, token, std::min(kTokens, x.rows - token)));
  }
  return absl::OkStatus();
}

}  // namespace lwq
