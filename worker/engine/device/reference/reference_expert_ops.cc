// What a mixture of experts adds to the decoder's operations.
#include <cmath>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq {

absl::Status ReferenceDevice::ChooseExperts(DeviceView<const float> logits, bool normalized,
                                            DeviceView<int32_t> chosen, DeviceView<float> share) {
  LWQ_RETURN_IF_ERROR(CheckChosenExperts(logits, chosen, share));
  for (int64_t r = 0; r < logits.rows; ++r) {
    const float* row = Row(logits, r);
    std::vector<bool> taken(static_cast<size_t>(logits.cols));
    double top = 0, total = 0, chosen_total = 0;
    for (int64_t j = 0; j < chosen.cols; ++j) {
      int64_t best = -1;
      for (int64_t e = 0; e < logits.cols; ++e) {
        if (!taken[e] && (best < 0 || row[e] > row[best])) best = e;
      }
      taken[best] = true;
      Row(chosen, r)[j] = static_cast<int32_t>(best);
      if (j == 0) top = row[best];
      chosen_total += std::exp(row[best] - top);
    }
    for (int64_t e = 0; e < logits.cols; ++e) total += std::exp(row[e] - top);
    for (int64_t j = 0; j < chosen.cols; ++j) {
      const double power = std::exp(row[Row(chosen, r)[j]] - top);
      Row(share, r)[j] = static_cast<float>(power / (normalized ? chosen_total : total));
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::GatherRows(DeviceView<const float> from,
                                         DeviceSpan<const int32_t> rows, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("gathered rows", to, to.rows, from.cols));
  LWQ_RETURN_IF_ERROR(CheckRows(space_.Host(rows), to.rows, from.rows));
  for (int64_t r = 0; r < to.rows; ++r) {
    const float* source = Row(from, space_.Host(rows.data)[r]);
    for (int64_t c = 0; c < to.cols; ++c) Row(to, r)[c] = source[c];
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::ScatterAddRows(DeviceView<const float> from,
                                             DeviceSpan<const int32_t> rows,
                                             DeviceSpan<const float> scale, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("rows that are added", from, from.rows, to.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("their scales", scale.size, from.rows));
  LWQ_RETURN_IF_ERROR(CheckRows(space_.Host(rows), from.rows, to.rows));
  for (int64_t r = 0; r < from.rows; ++r) {
    float* sum = Row(to, space_.Host(rows.data)[r]);
    const double factor = space_.Host(scale.data)[r];
    for (int64_t c = 0; c < from.cols; ++c) {
      sum[c] = static_cast<float>(sum[c] + factor * Row(from, r)[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckLength("gates of rows", gate.size, x.rows));
  for (int64_t r = 0; r < x.rows; ++r) {
    const double factor = 1 / (1 + std::exp(-double{space_.Host(gate.data)[r]}));
    for (int64_t c = 0; c < x.cols; ++c) {
      Row(x, r)[c] = static_cast<float>(Row(x, r)[c] * factor);
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
