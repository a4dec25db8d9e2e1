#include "worker/engine/quant/scale_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/quant/device_linear.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {
namespace {

constexpr int kExponents = 20;
constexpr float kSmallestScale = 1e-4f;
constexpr int64_t kRows = 512;  // multiplied with H at once
// A column without inputs counts so much of a mean one.
constexpr double kFloor = 1e-4;

// row by row, so that the sum does not depend on the number of threads.
double DotOf(ThreadPool& threads, ConstMatrixView a, ConstMatrixView b) {
  std::vector<double> sums(static_cast<size_t>(a.rows));
  threads.ParallelFor(a.rows, [&](int64_t r) {
    double sum = 0;
    for (int64_t c = 0; c < a.cols; ++c) sum += double{a.Row(r)[c]} * b.Row(r)[c];
    sums[static_cast<size_t>(r)] = sum;
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// The reader's columns' scales.
std::vector<float> ColumnScales(const ScaledReader& reader, absl::Span<const float> scales) {
  std::vector<float> columns(static_cast<size_t>(reader.rows.cols()));
  for (int64_t c = 0; c < reader.rows.cols(); ++c) {
    columns[static_cast<size_t>(c)] = scales[static_cast<size_t>(reader.channel_of(c))];
  }
  return columns;
}

// What rounding the scaled rows does to their outputs.
absl::StatusOr<double> LossOf(Device* device, const ScaledReader& reader, GridSpec grid,
                              absl::Span<const float> scales) {
  const std::vector<float> columns = ColumnScales(reader, scales);
  const int64_t cols = reader.rows.cols();
  if (cols % grid.GroupSizeFor(cols) != 0) grid.group_size = 0;
  Matrix host(reader.rows.rows(), cols);
  const auto by_rows = [&](const auto& value) {
    device->host_threads().ParallelFor(host.rows(), [&](int64_t r) {
      for (int64_t c = 0; c < cols; ++c) {
        host.Row(r)[c] = value(r, c, columns[static_cast<size_t>(c)]);
      }
    });
  };
  by_rows([&](int64_t r, int64_t c, float scale) { return reader.rows.Row(r)[c] * scale; });
  LWQ_ASSIGN_OR_RETURN(const auto weight, device->NewMatrix(host.rows(), cols));
  LWQ_RETURN_IF_ERROR(device->Upload(host.view(), weight->view()));
  const std::vector<float> weights = ColumnWeights(reader.power->diagonal(), columns);
  LWQ_ASSIGN_OR_RETURN(const auto column_weights, device->NewMatrix(1, cols));
  LWQ_RETURN_IF_ERROR(device->Upload(absl::MakeConstSpan(weights), column_weights->span()));
  LWQ_ASSIGN_OR_RETURN(const DeviceLinear rounded,
                       RoundToNearest(device, weight->view(), grid, column_weights->span()));
  LWQ_RETURN_IF_ERROR(device->Dequantize(rounded.codes->view(), grid, rounded.scales->view(),
                                         rounded.zeros_view(), weight->view()));
  Matrix values(host.rows(), cols);
  LWQ_RETURN_IF_ERROR(device->Download(weight->view(), values.view()));
  by_rows([&](int64_t r, int64_t c, float scale) {
    return values.Row(r)[c] / scale - reader.rows.Row(r)[c];
  });
  return reader.power->Of(host.view());
}

}  // namespace

absl::StatusOr<OutputPower> OutputPower::Create(Device* device,
                                                std::unique_ptr<DeviceMatrix> triangle) {
  OutputPower power;
  power.device_ = device;
  const int64_t n = triangle->view().rows;
  power.diagonal_.resize(static_cast<size_t>(n));
  LWQ_RETURN_IF_ERROR(device->Download(triangle->view().Diagonal(),
                                       MatrixView{power.diagonal_.data(), n, 1, 1}));
  LWQ_RETURN_IF_ERROR(device->ScaleAndMirror(1.0f, triangle->view()));
  LWQ_ASSIGN_OR_RETURN(power.h_, device->PrepareWeight(triangle->view(), ComputeType::kF32));
  return power;
}

absl::StatusOr<double> OutputPower::Of(ConstMatrixView m) const {
  const int64_t at_once = std::min(kRows, m.rows);
  LWQ_ASSIGN_OR_RETURN(const auto rows, device_->NewMatrix(at_once, m.cols));
  LWQ_ASSIGN_OR_RETURN(const auto products, device_->NewMatrix(at_once, m.cols));
  Matrix host(at_once, m.cols);
  double sum = 0;
  for (int64_t begin = 0; begin < m.rows; begin += at_once) {
    const ConstMatrixView part = m.Rows(begin, std::min(at_once, m.rows - begin));
    const MatrixView out = host.view().Rows(0, part.rows);
    LWQ_RETURN_IF_ERROR(device_->Upload(part, rows->Rows(0, part.rows)));
    LWQ_RETURN_IF_ERROR(
        device_->Linear(rows->Rows(0, part.rows), *h_, products->Rows(0, part.rows)));
    LWQ_RETURN_IF_ERROR(device_->Download(products->Rows(0, part.rows), out));
    sum += DotOf(device_->host_threads(), part, out);
  }
  return std::max(sum, 0.0);  // rounding may take a power of nothing below zero
}

std::vector<float> CandidateScales(absl::Span<const float> magnitudes, double exponent) {
  std::vector<float> scales;
  for (const float magnitude : magnitudes) {
    scales.push_back(
        std::max(static_cast<float>(std::pow(double{magnitude}, exponent)), kSmallestScale));
  }
  return OverTheirMiddle(std::move(scales));
}

std::vector<float> OverTheirMiddle(std::vector<float> scales) {
  if (scales.empty()) return scales;
  const auto [smallest, largest] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*smallest) * std::sqrt(*largest);
  for (float& scale : scales) {
    scale /= middle;
    if (!(std::isfinite(scale) && scale > 0)) scale = 1;
  }
  return scales;
}

std::vector<float> ColumnWeights(absl::Span<const float> diagonal, absl::Span<const float> scales) {
  std::vector<double> squares;
  double mean = 0;
  for (size_t c = 0; c < diagonal.size(); ++c) {
    const double scale = scales.empty() ? 1 : scales[c];
    const double square = std::isfinite(diagonal[c]) ? diagonal[c] / (scale * scale) : 0;
    squares.push_back(square);
    mean += square / static_cast<double>(diagonal.size());
  }
  std::vector<float> weights;
  for (const double square : squares) {
    // Over their mean, so that no weight is past what F32 holds.
    weights.push_back(mean > 0 ? static_cast<float>(square / mean + kFloor) : 1.0f);
  }
  return weights;
}

absl::StatusOr<FoundScales> FindScales(
    Device* device, absl::Span<const float> magnitudes, absl::Span<const ScaledReader> readers,
    const GridSpec& grid,
    const std::function<std::vector<float>(std::vector<float>)>& realize) {
  FoundScales best;
  for (int step = 0; step < kExponents; ++step) {
    const double exponent = static_cast<double>(step) / kExponents;
    // The first is plain rounding: every scale is one.
    std::vector<float> scales =
        step == 0 ? std::vector<float>(magnitudes.size(), 1.0f)
                  : realize(CandidateScales(magnitudes, exponent));
    double loss = 0;
    for (const ScaledReader& reader : readers) {
      LWQ_ASSIGN_OR_RETURN(const double one, LossOf(device, reader, grid, scales));
      loss += one;
    }
    if (step == 0) best.unscaled_loss = loss;
    if (step > 0 && !(loss < best.loss)) continue;
    best.scales = std::move(scales);
    best.exponent = exponent;
    best.loss = loss;
  }
  return best;
}

}  // namespace lwq
