#include "worker/engine/device/cuda/deferred_checks.h"

#include <utility>

namespace lwq::cuda {

absl::StatusOr<std::unique_ptr<DeferredChecks>> DeferredChecks::Create(
    std::shared_ptr<DevicePool> pool) {
  std::unique_ptr<DeferredChecks> checks(new DeferredChecks(std::move(pool)));
  LWQ_ASSIGN_OR_RETURN(checks->on_device_, checks->pool_->Allocate(1, sizeof(Findings), 1));
  LWQ_ASSIGN_OR_RETURN(checks->on_host_, NewPinned(sizeof(Findings)));
  LWQ_RETURN_IF_ERROR(checks->Reset());
  return checks;
}

// All ones: a place past all others.
absl::Status DeferredChecks::Reset() {
  open_.clear();
  return StatusOf(
      cudaMemsetAsync(on_device_->data().address(), 0xff, sizeof(Findings), pool_->stream()),
      "resetting checks");
}

absl::StatusOr<DeferredChecks::Place> DeferredChecks::Add(Describe describe) {
  if (open_.size() == kPlaces) LWQ_RETURN_IF_ERROR(Collect());
  auto* findings = reinterpret_cast<Findings*>(on_device_->data().address());
  const size_t at = open_.size();
  open_.push_back(std::move(describe));
  return Place{findings->first + at, findings->value + at};
}

absl::Status DeferredChecks::Collect() {
  if (!open_.empty()) {
    LWQ_RETURN_IF_ERROR(
        StatusOf(cudaMemcpyAsync(on_host_.get(), on_device_->data().address(), sizeof(Findings),
                                 cudaMemcpyDeviceToHost, pool_->stream()),
                 "reading checks"));
  }
  LWQ_RETURN_IF_ERROR(StatusOf(cudaStreamSynchronize(pool_->stream()), "waiting for the device"));
  if (open_.empty()) return absl::OkStatus();
  const auto* findings = static_cast<const Findings*>(on_host_.get());
  absl::Status status;
  for (size_t i = 0; i < open_.size() && status.ok(); ++i) {
    if (findings->first[i] == ~0ull) continue;
    status = open_[i](static_cast<int64_t>(findings->first[i]), findings->value[i]);
  }
  LWQ_RETURN_IF_ERROR(Reset());
  return status;
}

}  // namespace lwq::cuda
