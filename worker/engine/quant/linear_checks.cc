#include "worker/engine/quant/linear_checks.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kRowsPerRead = 16;  // read back at a time: small enough to stay in cache
constexpr int64_t kSums = 16;         // independent partial sums, so that the loop vectorises

// Calls body(first row, rows in host memory) over the whole weight.
template <typename Body>
absl::Status ForHostRows(Device* device, ConstMatrixView weight, const Body& body) {
  Matrix host(std::min(kRowsPerRead, weight.rows), weight.cols);
  for (int64_t r = 0; r < weight.rows; r += kRowsPerRead) {
    const int64_t count = std::min(kRowsPerRead, weight.rows - r);
    LWQ_RETURN_IF_ERROR(device->Download(weight.Rows(r, count), host.view().Rows(0, count)));
    LWQ_RETURN_IF_ERROR(body(r, host.view().Rows(0, count)));
  }
  return absl::OkStatus();
}

bool AllFinite(const float* w, int64_t n) {
  int bad = 0;
  for (int64_t k = 0; k < n; ++k) bad |= !(std::fabs(w[k]) <= FLT_MAX);
  return bad == 0;
}

absl::Status CheckRowsFinite(int64_t first, ConstMatrixView rows) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    if (AllFinite(rows.Row(r), rows.cols)) continue;
    const float* bad = std::find_if(rows.Row(r), rows.Row(r) + rows.cols,
                                    [](float w) { return !std::isfinite(w); });
    return InvalidFailure(
        "NON_FINITE_WEIGHTS",
        absl::StrCat("quantizing a weight: element [", first + r, ", ", bad - rows.Row(r), "] is ",
                     *bad, "; the source model is damaged"));
  }
  return absl::OkStatus();
}

absl::Status CheckGrid(const GridSpec& grid, int64_t in_features) {
  if (grid.bits < 2 || grid.bits > 8) {
    return InvalidFailure("BITS",
                          absl::StrCat("quantizing to ", grid.bits, " bits: expected 2 to 8 bits"));
  }
  if (grid.group_size < 0 || in_features % grid.GroupSizeFor(in_features) != 0) {
    return InvalidFailure(
        "GROUP_SIZE",
        absl::StrCat("group_size ", grid.group_size, " does not divide in_features ", in_features,
                     "; choose one that does, or 0 for one group a row"));
  }
  return absl::OkStatus();
}

struct ErrorSums {
  double error = 0;
  double weight = 0;
};

void AddGroup(const float* w, const uint8_t* codes, int64_t n, float scale, float zero,
              ErrorSums* sums) {
  float error[kSums] = {};
  float weight[kSums] = {};
  const auto add = [&](int64_t k, int64_t lane) {
    const float difference = w[k] - scale * (static_cast<float>(codes[k]) - zero);
    error[lane] += difference * difference;
    weight[lane] += w[k] * w[k];
  };
  int64_t k = 0;
  for (; k + kSums <= n; k += kSums) {
    for (int64_t lane = 0; lane < kSums; ++lane) add(k + lane, lane);
  }
  for (; k < n; ++k) add(k, 0);
  for (int64_t lane = 0; lane < kSums; ++lane) {
    sums->error += error[lane];
    sums->weight += weight[lane];
  }
}

}  // namespace

absl::Status CheckQuantizable(Device* device, ConstMatrixView weight,
                              absl::Span<const GridSpec> grids) {
  if (weight.rows <= 0 || weight.cols <= 0) {
    return InvalidFailure("SHAPE", absl::StrCat("quantizing an empty weight: [", weight.rows, ", ",
                                                weight.cols, "]"));
  }
  for (const GridSpec& grid : grids) LWQ_RETURN_IF_ERROR(CheckGrid(grid, weight.cols));
  return ForHostRows(device, weight, CheckRowsFinite);
}

absl::StatusOr<double> RelativeWeightError(Device* device, ConstMatrixView weight,
                                           const QuantizedLinear& quantized) {
  const GridSpec& grid = quantized.grid;
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const float middle = static_cast<float>(1 << (grid.bits - 1));
  ErrorSums sums;
  LWQ_RETURN_IF_ERROR(ForHostRows(device, weight, [&](int64_t first, ConstMatrixView rows) {
    for (int64_t r = 0; r < rows.rows; ++r) {
      const uint8_t* codes = quantized.codes.data() + (first + r) * weight.cols;
      for (int64_t g = 0; g < grid.NumGroups(weight.cols); ++g) {
        AddGroup(rows.Row(r) + g * group_size, codes + g * group_size, group_size,
                 quantized.scales.Row(first + r)[g],
                 grid.symmetric ? middle : quantized.zeros.Row(first + r)[g], &sums);
      }
    }
    return absl::OkStatus();
  }));
  return sums.weight > 0 ? sums.error / sums.weight : 0.0;
}

}  // namespace lwq
