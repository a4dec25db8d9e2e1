#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cuda/cuda_device.h"
#include "worker/engine/device/cuda/device_views.h"
#include "worker/engine/device/cuda/expert_kernels.h"

namespace lwq {

using cuda::SpanOf;
using cuda::StatusOf;
using cuda::ViewOf;

absl::Status CudaDevice::ChooseExperts(DeviceView<const float> logits, bool normalized,
                                       DeviceView<int32_t> chosen, DeviceView<float> share) {
  LWQ_RETURN_IF_ERROR(CheckChosenExperts(logits, chosen, share));
  if (logits.cols > cuda::kMostExperts) {
    return absl::UnimplementedError(absl::StrCat("choosing of ", logits.cols, " experts on ", name_,
                                                 ", at most ", cuda::kMostExperts));
  }
  return StatusOf(
      cuda::ChooseExperts(stream(), ViewOf(logits), normalized, ViewOf(chosen), ViewOf(share)),
      "choosing experts");
}

// Which rows are asked for is known to the device alone, so one outside is reported later.
absl::StatusOr<cuda::DeferredChecks::Place> CudaDevice::CheckRowsLater(int64_t count,
                                                                       int64_t expected,
                                                                       int64_t limit) {
  LWQ_RETURN_IF_ERROR(CheckLength("numbers of rows", count, expected));
  return checks_->Add([count, limit](int64_t first, float) {
    return absl::InvalidArgumentError(
        absl::StrCat("of ", count, " numbers of rows, number ", first, " is not below ", limit));
  });
}

absl::Status CudaDevice::GatherRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                                    DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("gathered rows", to, to.rows, from.cols));
  LWQ_ASSIGN_OR_RETURN(const auto place, CheckRowsLater(rows.size, to.rows, from.rows));
  return StatusOf(cuda::GatherRows(stream(), ViewOf(from), SpanOf(rows), ViewOf(to), place.first),
                  "gathering rows");
}

absl::Status CudaDevice::ScatterAddRows(DeviceView<const float> from,
                                        DeviceSpan<const int32_t> rows,
                                        DeviceSpan<const float> scale, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("rows that are added", from, from.rows, to.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("their scales", scale.size, from.rows));
  LWQ_ASSIGN_OR_RETURN(const auto place, CheckRowsLater(rows.size, from.rows, to.rows));
  return StatusOf(cuda::ScatterAddRows(stream(), ViewOf(from), SpanOf(rows), SpanOf(scale),
                                       ViewOf(to), place.first),
                  "adding rows");
}

absl::Status CudaDevice::SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckLength("gates of rows", gate.size, x.rows));
  return StatusOf(cuda::SigmoidRows(stream(), SpanOf(gate), ViewOf(x)), "gating rows");
}

}  // namespace lwq
