// The judge is judged: what it must not let pass.
#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

const TestDevice& Cpu() {
  return *std::find_if(TestDevices().begin(), TestDevices().end(),
                       [](const TestDevice& device) { return device.name == std::string("cpu"); });
}

absl::Status AddOne(Device& device, DeviceView<float> out) {
  return device.Add(OnDevice(&device, Random(out.rows, out.cols, 7).view())->view(), out);
}

TEST(JudgeTest, LetsARightResultPass) {
  const Matrix start = Random(9, 11, 1);
  EXPECT_TRUE(Judge(Cpu(), AddOne, start).Within(kEps * 4));
}

TEST(JudgeTest, RefusesABoundThatAnythingPasses) {
  const Matrix start = Random(9, 11, 1);
  for (const double bound : {1e6, 1.0, 0.05}) {
    const auto verdict = Judge(Cpu(), AddOne, start).Within(bound);
    EXPECT_FALSE(verdict) << bound;
    EXPECT_THAT(verdict.message(), ::testing::HasSubstr("lets an error"));
  }
}

TEST(JudgeTest, RefusesAWrongResult) {
  const Matrix start = Random(9, 11, 1);
  const auto wrong_on_cpu = [](Device& device, DeviceView<float> out) -> absl::Status {
    if (device.name() != "cpu") return AddOne(device, out);
    LWQ_RETURN_IF_ERROR(AddOne(device, out));
    return device.FillZero(out.Rows(8, 1).Cols(10, 1));
  };
  EXPECT_FALSE(Judge(Cpu(), wrong_on_cpu, start).Within(kEps * 4));
  const auto nan = [](Device& device, DeviceView<float> out) -> absl::Status {
    Matrix host(1, 1);
    host.data()[0] = std::nanf("");
    return device.name() == "cpu" ? device.Upload(host.view(), out.Rows(3, 1).Cols(3, 1))
                                  : absl::OkStatus();
  };
  EXPECT_FALSE(Judge(Cpu(), nan, start).Within(kEps * 4));
}

TEST(JudgeTest, RefusesAResultThatDependsOnTheThreads) {
  const Matrix start = Random(9, 11, 1);
  const auto by_threads = [](Device& device, DeviceView<float> out) -> absl::Status {
    LWQ_RETURN_IF_ERROR(AddOne(device, out));
    Matrix host = OnHost(device, out);
    host.data()[5] += static_cast<float>(device.host_threads().num_threads()) * 1e-7f;
    return device.Upload(host.view(), out);
  };
  EXPECT_THAT(Judge(Cpu(), by_threads, start).Within(1e-5).message(),
              ::testing::HasSubstr("threads"));
}

}  // namespace
}  // namespace lwq::testing
