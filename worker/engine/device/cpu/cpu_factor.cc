// InverseCholesky on the CPU, in place. With J the exchange of first and last, J H J = L L^T gives
// H^-1 = U^T U for U = J L^-1 J: one factor and one triangular inverse, no explicit inverse of H.
//
// Both run in a single sweep over block columns k: the rows below the diagonal block hold, left of
// column k, the sums of L^-1 so far, and right of it what is left to factor; each step updates both
// with one product per tile. Tiles are fixed and each OpenBLAS call runs on one thread, so results
// do not depend on the number of threads. Scratch: none beyond one diagonal block.
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "cblas.h"
#include "worker/engine/device/cpu/cpu_device.h"

extern "C" {
// LAPACK by its Fortran names (the package has no LAPACKE). Column-major.
void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* info);
void strtri_(const char* uplo, const char* diag, const int* n, float* a, const int* lda, int* info);
}

namespace lwq {
namespace {

constexpr int64_t kPanel = 256;
constexpr int64_t kTile = 512;

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
  Sweep(MatrixView a, ThreadPool* pool) : a_(a), pool_(pool), n_(a.rows) {}

  // Replaces the lower triangle by the inverse of its Cholesky factor; the strict upper triangle is
  // overwritten. -1, or the first column of the block that is not positive definite.
  int64_t Run() {
    for (int64_t k = 0; k < n_; k += kPanel) {
      const int64_t width = std::min(kPanel, n_ - k);
      if (!FactorBlock(At(k, k), width, a_.stride)) return k;
      SolvePanels(k, width);
      UpdateBelow(k, width);
      FinishColumn(k, width);
    }
    return -1;
  }

 private:
  float* At(int64_t i, int64_t j) const { return a_.Row(i) + j; }

  void Solve(CBLAS_SIDE side, CBLAS_TRANSPOSE transpose, int64_t k, float* b, int64_t rows,
             int64_t cols, float alpha) const {
    cblas_strsm(CblasRowMajor, side, CblasLower, transpose, CblasNonUnit, rows, cols, alpha,
                At(k, k), a_.stride, b, a_.stride);
  }

  // L[i, k] = A[i, k] L_kk^-T for the rows below; X[k, j] = L_kk^-1 P[k, j] for the columns before.
  void SolvePanels(int64_t k, int64_t width) {
    const int64_t below = n_ - k - width;
    const int64_t row_tiles = (below + kPanel - 1) / kPanel;
    const int64_t col_tiles = k / kPanel;
    pool_->ParallelFor(row_tiles + col_tiles, [&](int64_t t) {
      if (t < row_tiles) {
        const int64_t i = k + width + t * kPanel;
        Solve(CblasRight, CblasTrans, k, At(i, k), std::min(kPanel, n_ - i), width, 1.0f);
      } else {
        Solve(CblasLeft, CblasNoTrans, k, At(k, (t - row_tiles) * kPanel), width, kPanel, 1.0f);
      }
    });
  }

  // For the rows below: P[i, j] -= L[i, k] X[k, j] left of k, A[i, j] -= L[i, k] L[j, k]^T right of
  // it.
  void UpdateBelow(int64_t k, int64_t width) {
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
    pool_->ParallelFor(static_cast<int64_t>(tiles.size()), [&](int64_t t) {
      const Tile& tile = tiles[t];
      const float* other = tile.left ? At(k, tile.j) : At(tile.j, k);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, tile.left ? CblasNoTrans : CblasTrans, tile.rows,
                  tile.cols, width, -1.0f, At(tile.i, k), a_.stride, other, a_.stride, 1.0f,
                  At(tile.i, tile.j), a_.stride);
    });
  }

  // P[i, k] = -L[i, k] L_kk^-1 for the rows below; the diagonal block becomes its inverse.
  void FinishColumn(int64_t k, int64_t width) {
    const int64_t row_tiles = (n_ - k - width + kPanel - 1) / kPanel;
    pool_->ParallelFor(row_tiles, [&](int64_t t) {
      const int64_t i = k + width + t * kPanel;
      Solve(CblasRight, CblasNoTrans, k, At(i, k), std::min(kPanel, n_ - i), width, -1.0f);
    });
    const int size = static_cast<int>(width);
    const int lda = static_cast<int>(a_.stride);
    int info = 0;  // the diagonal is positive: it cannot fail
    strtri_("U", "N", &size, At(k, k), &lda, &info);
  }

  MatrixView a_;
  ThreadPool* pool_;
  int64_t n_;
};

}  // namespace

absl::Status CpuDevice::InverseCholesky(MatrixView h) {
  if (h.rows != h.cols) {
    return InvalidFailure(
        "SHAPE", absl::StrCat("factoring a matrix that is not square: ", h.rows, " x ", h.cols));
  }
  openblas_set_num_threads(1);
  ReverseLower(h, &pool_);
  const int64_t failed_at = Sweep(h, &pool_).Run();
  if (failed_at >= 0) {
    return PreconditionFailure(
        "NOT_POSITIVE_DEFINITE",
        absl::StrCat("factoring a matrix of ", h.rows, ": not positive definite within columns ",
                     std::max<int64_t>(0, h.rows - failed_at - kPanel), " to ",
                     h.rows - failed_at - 1));
  }
  if (!ReverseToUpper(h, &pool_)) {
    return PreconditionFailure(
        "NOT_POSITIVE_DEFINITE",
        absl::StrCat("factoring a matrix of ", h.rows, ": the inverse factor is not finite"));
  }
  return absl::OkStatus();
}

}  // namespace lwq
