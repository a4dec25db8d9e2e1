// From the sum of x x^T to what second-order quantizers need: the order of columns and the factor
// of the damped inverse (methods: GPTQ, 3.1 and 3.2).
//
// Damping ladder: lambda times the mean of the diagonal is added, with lambda first as asked for
// and then three times as much after each failure, up to kMaxTries. A linear whose inputs are not
// finite, or all zero, or whose ladder ends without a factor, gets none, and its quantizer rounds
// to nearest.
//
// Memory: while the factor is made, the second moments besides it; afterwards the factor, half of
// it once more as GPTQ multiplies with it, and, where refinement is wanted, H.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {
namespace {

constexpr int kMaxTries = 6;
constexpr double kGrowth = 3;

template <typename T>
absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> OnDevice(Device* device,
                                                          const std::vector<T>& host) {
  LWQ_ASSIGN_OR_RETURN(auto out, device->NewBuffer<T>(1, static_cast<int64_t>(host.size())));
  LWQ_RETURN_IF_ERROR(device->Upload(absl::MakeConstSpan(host), out->span()));
  return out;
}

// The diagonal of `h` becomes scale * raw + ridge, rounded once.
absl::Status SetDamped(Device* device, const std::vector<float>& raw, double scale, double ridge,
                       DeviceView<float> h) {
  std::vector<float> damped(raw.size());
  for (size_t k = 0; k < raw.size(); ++k) {
    damped[k] = static_cast<float>(scale * raw[k] + ridge);
  }
  return device->Upload({damped.data(), h.rows, 1, 1}, h.Diagonal());
}

// `h`: damped, both triangles.
absl::StatusOr<std::unique_ptr<const BlockedHessian>> MakeHessian(Device* device,
                                                                  DeviceView<const float> h,
                                                                  ComputeType type) {
  constexpr int64_t kBlock = BlockedHessian::kBlock;
  auto out = std::make_unique<BlockedHessian>();
  LWQ_ASSIGN_OR_RETURN(out->diagonal, device->NewMatrix(h.rows, std::min(kBlock, h.rows)));
  for (int64_t first = 0; first < h.rows; first += kBlock) {
    const int64_t count = std::min(kBlock, h.rows - first);
    const DeviceView<const float> block = h.Rows(first, count);  // its columns too: H is symmetric
    LWQ_ASSIGN_OR_RETURN(auto prepared, device->PrepareWeight(block, type));
    out->columns.push_back(std::move(prepared));
    LWQ_RETURN_IF_ERROR(
        device->Copy(block.Cols(first, count), out->diagonal->Rows(first, count).Cols(0, count)));
  }
  return out;
}

absl::StatusOr<std::unique_ptr<const BlockedFactor>> MakeFactor(Device* device,
                                                                std::unique_ptr<DeviceMatrix> u,
                                                                ComputeType type) {
  constexpr int64_t kBlock = BlockedFactor::kBlock;
  auto out = std::make_unique<BlockedFactor>();
  const DeviceView<const float> rows = u->view();
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
    return Failure(reasons::kShape,
                   absl::StrCat("second moments must be square: ", n, " x ", gram->view().cols));
  }
  std::vector<float> raw(static_cast<size_t>(n));  // the diagonal of `gram`
  LWQ_RETURN_IF_ERROR(device->Download(gram->view().Diagonal(), MatrixView{raw.data(), n, 1, 1}));
  const double scale = num_tokens > 0 ? 1.0 / static_cast<double>(num_tokens) : 0.0;
  std::shared_ptr<InputStatistics> out(new InputStatistics());
  out->num_tokens_ = num_tokens;
  out->act_order_ = options.act_order;
  out->compute_ = options.compute;
  std::vector<float> diagonal(raw.size());  // of H
  double mean = 0;
  for (size_t k = 0; k < raw.size(); ++k) {
    const double value = scale * raw[k];
    mean += value / static_cast<double>(n);
    out->num_dead_columns_ += value == 0 ? 1 : 0;
    diagonal[k] = std::isfinite(value) ? static_cast<float>(value) : 0.0f;
  }
  LWQ_RETURN_IF_ERROR(out->SetOrder(device, diagonal));
  if (std::isfinite(mean) && mean > 0) {
    LWQ_RETURN_IF_ERROR(out->Factor(device, std::move(gram), raw, scale, mean, options));
  }
  LWQ_RETURN_IF_ERROR(out->SetColumnWeights(device, std::move(diagonal)));
  return out;
}

absl::Status InputStatistics::SetOrder(Device* device, const std::vector<float>& diagonal) {
  order_.resize(diagonal.size());
  std::iota(order_.begin(), order_.end(), 0);
  if (act_order_) {
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int32_t a, int32_t b) { return diagonal[a] > diagonal[b]; });
  }
  std::vector<int32_t> places(order_.size());
  for (size_t j = 0; j < order_.size(); ++j) places[order_[j]] = static_cast<int32_t>(j);
  LWQ_ASSIGN_OR_RETURN(device_order_, OnDevice(device, order_));
  LWQ_ASSIGN_OR_RETURN(device_places_, OnDevice(device, places));
  return absl::OkStatus();
}

absl::Status InputStatistics::Factor(Device* device, std::unique_ptr<DeviceMatrix> gram,
                                     const std::vector<float>& raw, double scale, double mean,
                                     const Options& options) {
  const DeviceView<float> h = gram->view();
  LWQ_RETURN_IF_ERROR(device->ScaleAndMirror(static_cast<float>(scale), h));
  LWQ_ASSIGN_OR_RETURN(auto u, device->NewMatrix(h.rows, h.rows));
  double damping = options.damping;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    damping_used_ = damping;
    damping_retries_ = attempt;
    LWQ_RETURN_IF_ERROR(SetDamped(device, raw, scale, damping * mean, h));
    LWQ_RETURN_IF_ERROR(device->PermuteLower(h, device_order(), u->view()));
    const absl::Status factored = device->InverseCholesky(u->view());
    if (factored.ok()) {
      if (options.refinement) {
        LWQ_ASSIGN_OR_RETURN(hessian_, MakeHessian(device, h, options.compute));
      }
      gram.reset();
      LWQ_ASSIGN_OR_RETURN(factor_, MakeFactor(device, std::move(u), options.compute));
      return absl::OkStatus();
    }
    if (factored.code() != absl::StatusCode::kFailedPrecondition) return factored;
    damping = damping > 0 ? damping * kGrowth : 0.01;
  }
  return absl::OkStatus();
}

absl::Status InputStatistics::SetColumnWeights(Device* device, std::vector<float> diagonal) {
  double mean = 0;
  for (const float d : diagonal) mean += d / static_cast<double>(diagonal.size());
  // Without a factor there is no damping; a floor keeps columns without inputs from being ignored.
  const double ridge = std::max(damping_used_, 1e-4) * mean;
  for (float& d : diagonal) d = mean > 0 ? static_cast<float>(d + ridge) : 1.0f;
  LWQ_ASSIGN_OR_RETURN(column_weights_, OnDevice(device, diagonal));
  return absl::OkStatus();
}

}  // namespace lwq
