// What a preflight tries: what the job will do, and no more.
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/runner/local_blobs.h"
#include "worker/engine/device/device.h"
#include "worker/runner/task_runner.h"

namespace lwq {
namespace {

// What a preflight of a job by `method` says that it does.
std::vector<std::string> StepsOf(const std::string& method) {
  const std::string directory = ::testing::TempDir() + "/preflight_task_test_" + method;
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  v1::Lease lease;
  v1::PreflightTask& task = *lease.mutable_spec()->mutable_preflight();
  task.mutable_model()->set_directory(directory + "/model");
  task.mutable_recipe()->set_method(method);
  EXPECT_OK(testing::WriteTinyModel({}, task.model().directory()));
  const auto device = MakeDevice({.device = "cpu", .num_threads = 1});
  EXPECT_OK(device.status());
  testing::LocalBlobs blobs(directory);
  std::vector<std::string> steps;
  TaskContext context;
  context.device = device->get();
  context.blobs = &blobs;
  context.lease = &lease;
  context.progress = [&](double, const std::string& said) {
    steps.push_back(said);
    return absl::OkStatus();
  };
  EXPECT_OK(RunTask(context).status());
  std::filesystem::remove_all(directory);
  return steps;
}

TEST(PreflightTaskTest, OnlySecondMomentsAreFactored) {
  const auto factors = ::testing::Contains(::testing::StartsWith("factor of"));
  EXPECT_THAT(StepsOf("gptq"), factors);
  EXPECT_THAT(StepsOf("awq"), factors);
  // Reads channels' maxima and rows of inputs; its forecast has no factor.
  EXPECT_THAT(StepsOf("smoothquant"), ::testing::Not(factors));
  EXPECT_THAT(StepsOf("rtn"), ::testing::Not(factors));
}

}  // namespace
}  // namespace lwq
