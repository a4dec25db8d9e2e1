// Names of devices.
#include "tests/testing/status_matchers.h"
#include "worker/engine/device/device.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;

TEST(DeviceFactoryTest, NamesMeanDevices) {
  for (const auto& [name, made] :
       {std::pair("auto", "cpu"), {"cpu", "cpu"}, {"reference", "reference"}}) {
    const auto device = MakeDevice({.device = name, .num_threads = 1});
    ASSERT_OK(device.status());
    EXPECT_EQ((*device)->name(), made);
  }
}

TEST(DeviceFactoryTest, WhatIsNoDeviceIsRefused) {
  for (const char* name : {"cuda", "cuda:", "cuda:x", "cuda:-1", "cuda: 0", "cuda:+0", "cuda:00", "gpu", ""}) {
    EXPECT_THAT(MakeDevice({.device = name}).status(),
                FailsWith("DEVICE_UNKNOWN", HasSubstr("cuda:N")))
        << name;
  }
  EXPECT_THAT(MakeDevice({.num_threads = -1}).status(),
              FailsWith("DEVICE_THREADS", HasSubstr("-1")));
}

// Without CUDA in the build, or without so many GPUs.
TEST(DeviceFactoryTest, AGpuThatIsNotThereIsNamed) {
  EXPECT_THAT(MakeDevice({.device = "cuda:900"}).status(),
              FailsWith("DEVICE_UNAVAILABLE", HasSubstr("cuda:900")));
}

}  // namespace
}  // namespace lwq::testing
