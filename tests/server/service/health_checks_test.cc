#include "server/service/health_checks.h"

#include "gmock/gmock.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::Worker WorkerIn(const std::string& id, v1::Worker::State state, bool cordoned = false,
                    const std::string& build = "1") {
  v1::Worker worker;
  worker.set_name("workers/" + id);
  worker.set_state(state);
  worker.set_cordoned(cordoned);
  worker.mutable_registration()->set_build(build);
  return worker;
}

TEST(HealthChecksTest, RoomOnADisk) {
  constexpr double kGiB = 1 << 30;
  const v1::HealthCheck roomy = DiskCheck("/d", 100 * kGiB, 400 * kGiB);
  EXPECT_EQ(roomy.state(), v1::HealthCheck::OK);
  EXPECT_EQ(roomy.detail(), "100.0 GiB of 400.0 GiB free under /d");
  EXPECT_THAT(roomy.advice(), IsEmpty());
  EXPECT_EQ(DiskCheck("/d", 2 * kGiB, 400 * kGiB).state(), v1::HealthCheck::WARN);
  const v1::HealthCheck full = DiskCheck("/d", 0, 400 * kGiB);
  EXPECT_EQ(full.state(), v1::HealthCheck::FAIL);
  EXPECT_THAT(full.advice(), HasSubstr("lwqctl gc"));
}

TEST(HealthChecksTest, SomeWorkerHasToBeThere) {
  EXPECT_EQ(WorkersCheck({}, "1").state(), v1::HealthCheck::FAIL);
  EXPECT_THAT(WorkersCheck({}, "1").advice(), HasSubstr("lwq-worker --server"));
  const auto cordoned = WorkersCheck({WorkerIn("a", v1::Worker::READY, true)}, "1");
  EXPECT_EQ(cordoned.state(), v1::HealthCheck::FAIL);
  EXPECT_THAT(cordoned.advice(), HasSubstr("uncordon"));
  EXPECT_EQ(WorkersCheck({WorkerIn("a", v1::Worker::BUSY)}, "1").state(), v1::HealthCheck::OK);
  const auto one_lost =
      WorkersCheck({WorkerIn("a", v1::Worker::BUSY), WorkerIn("b", v1::Worker::LOST)}, "1");
  EXPECT_EQ(one_lost.state(), v1::HealthCheck::WARN);
  EXPECT_EQ(one_lost.detail(), "1 ready or busy, not heard of: b");
}

TEST(HealthChecksTest, AWorkerThatIsSilentIsNotReady) {
  const auto check =
      WorkersCheck({WorkerIn("a", v1::Worker::SILENT), WorkerIn("b", v1::Worker::LOST, true)}, "1");
  EXPECT_EQ(check.state(), v1::HealthCheck::FAIL);
  EXPECT_EQ(check.detail(), "0 ready or busy, 1 cordoned, not heard of: a");
}

TEST(HealthChecksTest, VersionsDoNotMix) {
  const auto mixed = WorkersCheck(
      {WorkerIn("a", v1::Worker::READY, false, "2"), WorkerIn("b", v1::Worker::READY)}, "1");
  EXPECT_EQ(mixed.state(), v1::HealthCheck::WARN);
  EXPECT_THAT(mixed.detail(), HasSubstr("of another version than the server: a"));
}

}  // namespace
}  // namespace lwq
