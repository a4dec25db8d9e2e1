#include "worker/engine/device/device_speed.h"

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"

namespace lwq {
namespace {

// Long enough for what else runs on the machine to show: its share is not there for tasks either.
constexpr absl::Duration kTime = absl::Milliseconds(160);
// Slow devices get a small product.
constexpr int64_t kSmall = 64, kLarge = 1024;

// Seconds that products [size, size] x [size, size] take, each; one at least, for `time`.
absl::StatusOr<double> SecondsOfProduct(Device* device, int64_t size, absl::Duration time) {
  LWQ_ASSIGN_OR_RETURN(const auto x, device->NewMatrix(size, size));
  LWQ_ASSIGN_OR_RETURN(const auto y, device->NewMatrix(size, size));
  const std::vector<float> ones(static_cast<size_t>(size * size), 1.0f);
  LWQ_RETURN_IF_ERROR(device->Upload<float>({ones.data(), size, size, size}, x->view()));
  LWQ_ASSIGN_OR_RETURN(const auto weight, device->PrepareWeight(x->view(), ComputeType::kF32));
  LWQ_RETURN_IF_ERROR(device->Linear(x->view(), *weight, y->view()));  // first use sets things up
  LWQ_RETURN_IF_ERROR(device->Synchronize());
  const absl::Time start = absl::Now();
  int count = 0;
  do {
    LWQ_RETURN_IF_ERROR(device->Linear(x->view(), *weight, y->view()));
    LWQ_RETURN_IF_ERROR(device->Synchronize());
    ++count;
  } while (absl::Now() - start < time);
  return absl::ToDoubleSeconds(absl::Now() - start) / count;
}

double OperationsOf(int64_t size) {
  const auto n = static_cast<double>(size);
  return n * n * n;
}

}  // namespace

absl::StatusOr<double> MeasureOperationsPerSecond(Device* device) {
  LWQ_ASSIGN_OR_RETURN(double seconds, SecondsOfProduct(device, kSmall, absl::ZeroDuration()));
  const double small = OperationsOf(kSmall) / std::max(seconds, 1e-9);
  // A scalar device would take seconds for the large one, which tells nothing more.
  if (OperationsOf(kLarge) / small > absl::ToDoubleSeconds(2 * kTime)) return small;
  LWQ_ASSIGN_OR_RETURN(seconds, SecondsOfProduct(device, kLarge, kTime));
  return OperationsOf(kLarge) / std::max(seconds, 1e-9);
}

}  // namespace lwq
