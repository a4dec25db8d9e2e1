// From the sum of x x^T to what second-order quantizers need: the order of columns and the factor
// of the damped inverse (methods: GPTQ, 3.1 and 3.2).
//
// Damping ladder: lambda times the mean of the diagonal is added, with lambda first as asked for
// and then three times as much after each failure, up to kMaxTries. A linear whose inputs are not
// finite, or all zero, or whose ladder ends without a factor, gets none, and its quantizer rounds
// to nearest.
//
// Memory: while the factor is made, one K x K copy of the second moments in host memory; afterwards
// the factor, half of it once more as GPTQ multiplies with it, and, where refinement is wanted, H.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {
namespace {

constexpr int kMaxTries = 6;
constexpr double kGrowth = 3;

// Copies the lower triangle onto the upper one, tile by tile.
void Mirror(ThreadPool& threads, Matrix* a) {
  constexpr int64_t kTile = 64;
  const int64_t n = a->rows();
  threads.ParallelForBlocks(n, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t tj = 0; tj <= begin; tj += kTile) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = tj; j < std::min(i, tj + kTile); ++j) a->Row(j)[i] = a->Row(i)[j];
      }
    }
  });
}

// Puts the lower triangle of scale * gram[order, order] + ridge * I into `out` (device memory).
absl::Status UploadDamped(Device* device, const Matrix& gram, const std::vector<int32_t>& order,
                          double scale, double ridge, MatrixView out) {
  constexpr int64_t kRows = 64;
  const int64_t n = gram.rows();
  Matrix rows(std::min(kRows, n), n);
  const float factor = static_cast<float>(scale);
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t count = std::min(kRows, n - first);
    device->host_threads().ParallelFor(count, [&](int64_t i) {
      const float* from = gram.Row(order[first + i]);
      float* to = rows.Row(i);
      for (int64_t j = 0; j <= first + i; ++j) to[j] = factor * from[order[j]];
      std::fill(to + first + i + 1, to + n, 0.0f);
      to[first + i] = static_cast<float>(scale * from[order[first + i]] + ridge);
    });
    LWQ_RETURN_IF_ERROR(device->Upload(rows.view().Rows(0, count), out.Rows(first, count)));
  }
  return absl::OkStatus();
}

// scale * gram + ridge * I; `gram` has both triangles.
absl::StatusOr<std::unique_ptr<const BlockedHessian>> MakeHessian(Device* device,
                                                                  const Matrix& gram, double scale,
                                                                  double ridge, ComputeType type) {
  constexpr int64_t kBlock = BlockedHessian::kBlock;
  const int64_t n = gram.rows();
  auto out = std::make_unique<BlockedHessian>();
  LWQ_ASSIGN_OR_RETURN(out->diagonal, device->NewMatrix(n, std::min(kBlock, n)));
  Matrix columns(std::min(kBlock, n), n);  // as rows: H is symmetric
  const float factor = static_cast<float>(scale);
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    const MatrixView block = columns.view().Rows(0, count);
    device->host_threads().ParallelFor(count, [&](int64_t i) {
      const float* from = gram.Row(first + i);
      for (int64_t j = 0; j < n; ++j) block.Row(i)[j] = factor * from[j];
      block.Row(i)[first + i] = static_cast<float>(scale * from[first + i] + ridge);
    });
    LWQ_ASSIGN_OR_RETURN(auto prepared, device->PrepareWeight(block, type));
    out->columns.push_back(std::move(prepared));
    LWQ_RETURN_IF_ERROR(
        device->Upload(block.Cols(first, count), out->diagonal->Rows(first, count).Cols(0, count)));
  }
  return out;
}

absl::StatusOr<std::unique_ptr<const BlockedFactor>> MakeFactor(Device* device,
                                                                std::unique_ptr<DeviceMatrix> u,
                                                                ComputeType type) {
  constexpr int64_t kBlock = BlockedFactor::kBlock;
  auto out = std::make_unique<BlockedFactor>();
  const ConstMatrixView rows = u->view();
  for (int64_t end = kBlock; end < rows.rows; end += kBlock) {
    LWQ_ASSIGN_OR_RETURN(auto behind,
                         device->PrepareTransposed(
                             rows.Rows(end - kBlock, kBlock).Cols(end, rows.cols - end), type));
    out->behind.push_back(std::move(behind));
  }
  out->u = std::move(u);
  return out;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const InputStatistics>> InputStatistics::Create(
    Device* device, std::unique_ptr<DeviceMatrix> gram, int64_t num_tokens,
    const Options& options) {
  const int64_t n = gram->view().rows;
  if (n == 0 || gram->view().cols != n) {
    return InvalidFailure(
        "SHAPE", absl::StrCat("second moments must be square: ", n, " x ", gram->view().cols));
  }
  Matrix host(n, n);
  LWQ_RETURN_IF_ERROR(device->Download(gram->view(), host.view()));
  const double scale = num_tokens > 0 ? 1.0 / static_cast<double>(num_tokens) : 0.0;
  Matrix diagonal(1, n);
  double mean = 0;
  int64_t num_dead = 0;
  for (int64_t k = 0; k < n; ++k) {
    const double value = scale * host.Row(k)[k];
    mean += value / static_cast<double>(n);
    num_dead += value == 0 ? 1 : 0;
    diagonal.Row(0)[k] = std::isfinite(value) ? static_cast<float>(value) : 0.0f;
  }

  std::shared_ptr<InputStatistics> out(new InputStatistics());
  out->num_tokens_ = num_tokens;
  out->act_order_ = options.act_order;
  out->compute_ = options.compute;
  out->num_dead_columns_ = num_dead;
  out->order_.resize(n);
  std::iota(out->order_.begin(), out->order_.end(), 0);
  if (options.act_order) {
    const float* d = diagonal.data();
    std::stable_sort(out->order_.begin(), out->order_.end(),
                     [d](int32_t a, int32_t b) { return d[a] > d[b]; });
  }
  LWQ_ASSIGN_OR_RETURN(out->diagonal_, device->NewMatrix(1, n));
  LWQ_RETURN_IF_ERROR(device->Upload(diagonal.view(), out->diagonal_->view()));
  if (!std::isfinite(mean) || mean <= 0) return out;

  Mirror(device->host_threads(), &host);
  double damping = options.damping;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    out->damping_used_ = damping;
    out->damping_retries_ = attempt;
    LWQ_RETURN_IF_ERROR(
        UploadDamped(device, host, out->order_, scale, damping * mean, gram->view()));
    const absl::Status factored = device->InverseCholesky(gram->view());
    if (factored.ok()) {
      if (options.refinement) {
        LWQ_ASSIGN_OR_RETURN(out->hessian_,
                             MakeHessian(device, host, scale, damping * mean, options.compute));
      }
      host = Matrix();
      LWQ_ASSIGN_OR_RETURN(out->factor_, MakeFactor(device, std::move(gram), options.compute));
      return out;
    }
    if (factored.code() != absl::StatusCode::kFailedPrecondition) return factored;
    damping = damping > 0 ? damping * kGrowth : 0.01;
  }
  return out;
}

}  // namespace lwq
