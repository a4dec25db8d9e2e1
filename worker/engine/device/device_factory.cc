// Which device a name means. CUDA is linked in by the build, or a function that says it is not
// there.
#include <sched.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cuda/make_cuda_device.h"
#include "worker/engine/device/device.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq {
namespace {

constexpr int kMaxThreads = 1024;

int CoresOfThisProcess() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const DeviceOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return Failure(reasons::kDeviceThreads,
                   absl::StrCat("number of threads is ", options.num_threads, ", expected 0 to ",
                                kMaxThreads));
  }
  const int threads = options.num_threads == 0 ? CoresOfThisProcess() : options.num_threads;
  if (options.device == "auto" || options.device == "cpu") {
    return std::make_unique<CpuDevice>(threads);
  }
  if (options.device == "reference") return std::make_unique<ReferenceDevice>();
  absl::string_view number = options.device;
  int ordinal = 0;
  // As it is written everywhere: no sign, no blank, no leading zero.
  if (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &ordinal) && ordinal >= 0 &&
      number == absl::StrCat(ordinal)) {
    return MakeCudaDevice(ordinal, threads);
  }
  return Failure(reasons::kDeviceUnknown, absl::StrCat("device is \"", options.device,
                                                       "\", expected auto, cpu, reference or "
                                                       "cuda:N"));
}

}  // namespace lwq
