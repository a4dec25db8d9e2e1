#include "worker/engine/quant/linear_checks.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace lwq {
namespace {

constexpr int64_t kRowsPerRead = 256;  // read back at a time
constexpr int64_t kSums = 16;          // independent partial sums, so that the loop vectorises

// Calls body(r, row r in host memory) for each row of a weight, on the host's threads.
template <typename Body>
absl::Status ForHostRows(Device* device, ConstMatrixView weight, const Body& body) {
  Matrix host(std::min(kRowsPerRead, weight.rows), weight.cols);
  for (int64_t first = 0; first < weight.rows; first += kRowsPerRead) {
    const MatrixView rows = host.view().Rows(0, std::min(kRowsPerRead, weight.rows - first));
    LWQ_RETURN_IF_ERROR(device->Download(weight.Rows(first, rows.rows), rows));
    device->host_threads().ParallelFor(rows.rows, [&](int64_t r) { body(first + r, rows.Row(r)); });
  }
  return absl::OkStatus();
}

bool AllFinite(const float* w, int64_t n) {
  int bad = 0;
  for (int64_t k = 0; k < n; ++k) bad |= !(std::fabs(w[k]) <= FLT_MAX);
  return bad == 0;
}

absl::Status CheckFinite(Device* device, ConstMatrixView weight) {
  struct Element {
    int64_t column = -1;
    float value = 0;
  };
  std::vector<Element> bad(static_cast<size_t>(weight.rows));  // the first of each row
  LWQ_RETURN_IF_ERROR(ForHostRows(device, weight, [&](int64_t r, const float* row) {
    if (AllFinite(row, weight.cols)) return;
    const float* found =
        std::find_if(row, row + weight.cols, [](float w) { return !std::isfinite(w); });
    bad[static_cast<size_t>(r)] = {found - row, *found};
  }));
  for (size_t r = 0; r < bad.size(); ++r) {
    if (bad[r].column < 0) continue;
    return InvalidFailure("NON_FINITE_WEIGHTS",
                          absl::StrCat("quantizing a weight: element [", r, ", ", bad[r].column,
                                       "] is ", bad[r].value, "; the source model is damaged"));
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
  return CheckFinite(device, weight);
}

absl::StatusOr<double> RelativeWeightError(Device* device, ConstMatrixView weight,
                                           const QuantizedLinear& quantized) {
  const GridSpec& grid = quantized.grid;
  const int64_t group_size = grid.GroupSizeFor(weight.cols);
  const float middle = static_cast<float>(1 << (grid.bits - 1));
  std::vector<ErrorSums> of_row(static_cast<size_t>(weight.rows));
  LWQ_RETURN_IF_ERROR(ForHostRows(device, weight, [&](int64_t r, const float* row) {
    const uint8_t* codes = quantized.codes.data() + r * weight.cols;
    for (int64_t g = 0; g < grid.NumGroups(weight.cols); ++g) {
      AddGroup(row + g * group_size, codes + g * group_size, group_size, quantized.scales.Row(r)[g],
               grid.symmetric ? middle : quantized.zeros.Row(r)[g],
               &of_row[static_cast<size_t>(r)]);
    }
  }));
  ErrorSums sums;
  for (const ErrorSums& row : of_row) {
    sums.error += row.error;
    sums.weight += row.weight;
  }
  return sums.weight > 0 ? sums.error / sums.weight : 0.0;
}

}  // namespace lwq
