// Second-order information on the CPU.
//
// InverseCholesky works in place. With J the exchange of first and last, J H J = L L^T gives
// H^-1 = U^T U for U = J L^-1 J: one factor and one triangular inverse, no explicit inverse of H.
//
// Both run in a single sweep over block columns k: the rows below the diagonal block hold, left of
// column k, the sums of L^-1 so far, and right of it what is left to factor; each step updates both
// with one product per tile. All products are oneDNN's, with the inverse of the diagonal block
// where one would solve: on processors younger than itself OpenBLAS 0.3.21 falls back to SSE3. It
// factors and inverts diagonal blocks only. Tiles are fixed and each call runs on one thread, so
// results do not depend on the number of threads. Scratch: one diagonal block, and one panel a
// thread.
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_products.h"
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/device/cpu/run_all.h"

extern "C" {
void openblas_set_num_threads(int threads);
// LAPACK by its Fortran names (the package has no LAPACKE). Column-major.
void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* info);
void strtri_(const char* uplo, const char* diag, const int* n, float* a, const int* lda, int* info);
}

namespace lwq {
namespace {

constexpr int64_t kPanel = 256;
constexpr int64_t kTile = 576;  // what keeps oneDNN's AVX2 product fast: cpu_products.cc

// The lower triangle becomes that of J A J: entries swap across the other diagonal.
void ReverseLower(MatrixView a, ThreadPool* pool) {
  const int64_t n = a.rows;
  constexpr int64_t kSquare = 64;  // of each tile and its mirror image, so that both stay in cache
  const int64_t tiles = (n + kSquare - 1) / kSquare;
  pool->ParallelFor(tiles, [&](int64_t ti) {
    const int64_t i_end = std::min(n, (ti + 1) * kSquare);
    for (int64_t tj = 0; tj <= ti; ++tj) {
      for (int64_t i = ti * kSquare; i < i_end; ++i) {
        // (i, j) and (n-1-j, n-1-i); taken once, from the side with i + j < n - 1.
        const int64_t j_end = std::min({(tj + 1) * kSquare, i + 1, n - 1 - i});
        for (int64_t j = tj * kSquare; j < j_end; ++j) {
          std::swap(a.Row(i)[j], a.Row(n - 1 - j)[n - 1 - i]);
        }
      }
    }
  });
}

// The lower triangle X becomes the upper triangle J X J, the rest zero; false if not all finite.
bool ReverseToUpper(MatrixView a, ThreadPool* pool) {
  const int64_t n = a.rows;
  std::atomic<bool> finite{true};
  pool->ParallelForBlocks((n + 1) / 2, 64, [&](int64_t begin, int64_t end) {
    int bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      float* low = a.Row(i);
      float* high = a.Row(n - 1 - i);
      std::fill(low + i + 1, low + n, 0.0f);
      std::fill(high + n - i, high + n, 0.0f);
      for (int64_t j = 0; j < n; ++j) bad |= !(std::fabs(low[j]) <= FLT_MAX);
      for (int64_t j = 0; j < n; ++j) bad |= !(std::fabs(high[j]) <= FLT_MAX);
      if (low == high) {
        std::reverse(low, low + n);
      } else {
        for (int64_t j = 0; j < n; ++j) std::swap(low[j], high[n - 1 - j]);
      }
    }
    if (bad != 0) finite = false;
  });
  return finite;
}

// Lower A = L L^T of one diagonal block. Row-major lower is column-major upper.
bool FactorBlock(float* a, int64_t n, int64_t stride) {
  const int size = static_cast<int>(n);
  const int lda = static_cast<int>(stride);
  int info = 0;
  spotrf_("U", &size, a, &lda, &info);
  if (info != 0) return false;
  for (int64_t i = 0; i < n; ++i) {
    if (!(a[i * stride + i] > 0) || !std::isfinite(a[i * stride + i])) return false;
  }
  return true;
}

class Sweep {
 public:
  Sweep(MatrixView a, ThreadPool* pool, OnednnGemm* gemm)
      : a_(a), pool_(*pool), gemm_(*gemm), n_(a.rows), inverse_(kPanel, kPanel) {}

  // Replaces the lower triangle by the inverse of its Cholesky factor; the strict upper triangle is
  // overwritten. -1, or the first column of the block that is not positive definite.
  absl::StatusOr<int64_t> Run() {
    for (int64_t k = 0; k < n_; k += kPanel) {
      const int64_t width = std::min(kPanel, n_ - k);
      if (!FactorBlock(At(k, k), width, a_.stride)) return k;
      InvertBlock(k, width);
      LWQ_RETURN_IF_ERROR(SolvePanels(k, width));
      LWQ_RETURN_IF_ERROR(UpdateBelow(k, width));
      LWQ_RETURN_IF_ERROR(FinishColumn(k, width));
    }
    return -1;
  }

 private:
  float* At(int64_t i, int64_t j) const { return a_.Row(i) + j; }

  absl::Status Multiply(const GemmShape& shape, const float* a, const float* b, float* c) {
    LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, gemm_.Find(shape));
    return OnednnGemm::Run(*kernel, a, b, c);
  }

  // The diagonal block becomes its inverse; inverse_ is that with zeros above the diagonal.
  void InvertBlock(int64_t k, int64_t width) {
    const int size = static_cast<int>(width);
    const int lda = static_cast<int>(a_.stride);
    int info = 0;  // the diagonal is positive: it cannot fail
    strtri_("U", "N", &size, At(k, k), &lda, &info);
    for (int64_t i = 0; i < width; ++i) {
      std::copy_n(At(k + i, k), i + 1, inverse_.Row(i));
      std::fill_n(inverse_.Row(i) + i + 1, kPanel - i - 1, 0.0f);
    }
  }

  // c = sign * a b, where c overlaps an input: by way of a panel of the thread's own.
  absl::Status Replace(GemmShape shape, float sign, const float* a, const float* b, float* c) {
    static thread_local Matrix panel(kPanel, kPanel);
    if (panel.data() == nullptr) return absl::ResourceExhaustedError("no memory for a panel");
    shape.c_stride = kPanel;
    LWQ_RETURN_IF_ERROR(Multiply(shape, a, b, panel.data()));
    for (int64_t r = 0; r < shape.m; ++r) {
      for (int64_t j = 0; j < shape.n; ++j) c[r * a_.stride + j] = sign * panel.Row(r)[j];
    }
    return absl::OkStatus();
  }

  // L[i, k] = A[i, k] L_kk^-T for the rows below; X[k, j] = L_kk^-1 P[k, j] for the columns before.
  absl::Status SolvePanels(int64_t k, int64_t width) {
    const int64_t below = n_ - k - width;
    const int64_t row_tiles = (below + kPanel - 1) / kPanel;
    const int64_t col_tiles = k / kPanel;
    return RunAll(pool_, row_tiles + col_tiles, [&](int64_t t) {
      if (t < row_tiles) {
        const int64_t i = k + width + t * kPanel;
        return Replace({.m = std::min(kPanel, n_ - i),
                        .n = width,
                        .k = width,
                        .a_row_stride = a_.stride,
                        .b_row_stride = 1,
                        .b_col_stride = kPanel},
                       1, At(i, k), inverse_.data(), At(i, k));
      }
      float* at = At(k, (t - row_tiles) * kPanel);
      return Replace(
          {.m = width, .n = kPanel, .k = width, .a_row_stride = kPanel, .b_row_stride = a_.stride},
          1, inverse_.data(), at, at);
    });
  }

  // For the rows below: P[i, j] -= L[i, k] X[k, j] left of k, A[i, j] -= L[i, k] L[j, k]^T right of
  // it.
  absl::Status UpdateBelow(int64_t k, int64_t width) {
    struct Tile {
      int64_t i, j, rows, cols;
      bool left;
    };
    std::vector<Tile> tiles;
    for (int64_t i = k + width; i < n_; i += kTile) {
      const int64_t rows = std::min(kTile, n_ - i);
      for (int64_t j = 0; j < k; j += kTile) {
        tiles.push_back({i, j, rows, std::min(kTile, k - j), true});
      }
      for (int64_t j = k + width; j < i + rows; j += kTile) {
        tiles.push_back({i, j, rows, std::min(kTile, n_ - j), false});
      }
    }
    return RunAll(pool_, static_cast<int64_t>(tiles.size()), [&](int64_t t) {
      const Tile& tile = tiles[static_cast<size_t>(t)];
      const GemmShape shape{.m = tile.rows,
                            .n = tile.cols,
                            .k = width,
                            .a_row_stride = a_.stride,
                            .b_row_stride = tile.left ? a_.stride : 1,
                            .b_col_stride = tile.left ? 1 : a_.stride,
                            .c_stride = a_.stride,
                            .update = GemmShape::Update::kSubtract};
      const float* other = tile.left ? At(k, tile.j) : At(tile.j, k);
      return Multiply(shape, At(tile.i, k), other, At(tile.i, tile.j));
    });
  }

  // P[i, k] = -L[i, k] L_kk^-1 for the rows below.
  absl::Status FinishColumn(int64_t k, int64_t width) {
    const int64_t row_tiles = (n_ - k - width + kPanel - 1) / kPanel;
    return RunAll(pool_, row_tiles, [&](int64_t t) {
      const int64_t i = k + width + t * kPanel;
      return Replace({.m = std::min(kPanel, n_ - i),
                      .n = width,
                      .k = width,
                      .a_row_stride = a_.stride,
                      .b_row_stride = kPanel},
                     -1, At(i, k), inverse_.data(), At(i, k));
    });
  }

  MatrixView a_;
  ThreadPool& pool_;
  OnednnGemm& gemm_;
  int64_t n_;
  Matrix inverse_;  // of the diagonal block
};

}  // namespace

absl::Status CpuDevice::ScaleAndMirror(float factor, DeviceView<float> a) {
  LWQ_RETURN_IF_ERROR(CheckShape("symmetric matrix", a, a.rows, a.rows));
  constexpr int64_t kSquare = 64;  // of each tile and its mirror image, so that both stay in cache
  pool_.ParallelForBlocks(a.rows, kSquare, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = Row(a, i);
      for (int64_t j = 0; j <= i; ++j) row[j] *= factor;
    }
    for (int64_t tj = 0; tj <= begin; tj += kSquare) {
      for (int64_t i = begin; i < end; ++i) {
        const float* row = Row(a, i);
        for (int64_t j = tj; j < std::min(i, tj + kSquare); ++j) Row(a, j)[i] = row[j];
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::PermuteLower(DeviceView<const float> a, DeviceSpan<const int32_t> order,
                                     DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("permuted matrix", a, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("its permutation", out, a.rows, a.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("order", order.size, a.rows));
  const int32_t* from = Host(order.data);
  pool_.ParallelForBlocks(a.rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = Row(a, from[i]);
      float* to = Row(out, i);
      for (int64_t j = 0; j <= i; ++j) to[j] = row[from[j]];
      std::fill(to + i + 1, to + a.rows, 0.0f);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::InverseCholesky(DeviceView<float> device) {
  const MatrixView h = Host(device);
  if (h.rows != h.cols) {
    return Failure(reasons::kShape,
                   absl::StrCat("factoring a matrix that is not square: ", h.rows, " x ", h.cols));
  }
  openblas_set_num_threads(1);
  ReverseLower(h, &pool_);
  LWQ_ASSIGN_OR_RETURN(const int64_t failed_at, Sweep(h, &pool_, &products_->gemm).Run());
  if (failed_at >= 0) {
    return Failure(
        reasons::kNotPositiveDefinite,
        absl::StrCat("factoring a matrix of ", h.rows, ": not positive definite within columns ",
                     std::max<int64_t>(0, h.rows - failed_at - kPanel), " to ",
                     h.rows - failed_at - 1));
  }
  if (!ReverseToUpper(h, &pool_)) {
    return Failure(
        reasons::kNotPositiveDefinite,
        absl::StrCat("factoring a matrix of ", h.rows, ": the inverse factor is not finite"));
  }
  return absl::OkStatus();
}

}  // namespace lwq
