// The CUDA device on the machine's first GPU, as a device of the conformance suite. Where there is
// none the program ends with 77, which ctest shows as skipped.
#include <cstdio>
#include <cstdlib>

#include "base/reasons.h"
#include "tests/testing/test_devices.h"

namespace lwq::testing {
namespace {

absl::StatusOr<std::unique_ptr<Device>> MakeGpu() { return MakeDevice({.device = "cuda:0"}); }

// After main has begun: before it, CUDA may not be used.
class Gpu final : public ::testing::Environment {
 public:
  void SetUp() override {
    const auto device = MakeGpu();
    if (HasReason(device.status(), reasons::kDeviceUnavailable) ||
        HasReason(device.status(), reasons::kDeviceMissing)) {
      std::fprintf(stderr, "skipped: %s\n", device.status().ToString().c_str());
      std::exit(77);
    }
    ASSERT_OK(device.status());  // a GPU that cannot be used is no reason to skip
  }
};

[[maybe_unused]] const bool added = [] {
  ::testing::AddGlobalTestEnvironment(new Gpu);
  TestDevices().push_back({"cuda",
                           [](int) -> std::unique_ptr<Device> {
                             auto device = MakeGpu();
                             EXPECT_OK(device.status());
                             return *std::move(device);
                           },
                           {1, 2},  // which changes nothing on a GPU: results repeat
                           false});
  return true;
}();

}  // namespace
}  // namespace lwq::testing
