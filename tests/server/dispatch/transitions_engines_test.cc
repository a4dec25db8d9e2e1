// Jobs and the classes of workers that compute them, when workers come and go.
#include "gmock/gmock.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Count;
using ::lwq::testing::Scenario;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000;

TEST(Engines, AJobIsComputedByOneClassOfNumericsAndOneVersion) {
  Scenario s(3);
  s.numerics_class = "cpu-2";
  s.Register("other", "incarnation-o");
  s.numerics_class = "cpu-1";
  s.engine_version = 2;
  s.Register("newer", "incarnation-n");
  s.engine_version = 1;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  EXPECT_TRUE(s.Lease("other", 8).empty());
  EXPECT_TRUE(s.Lease("newer", 8).empty());
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  // What one class computed is not another's.
  s.numerics_class = "cpu-2";
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 1000)));
  EXPECT_EQ(Count(s.Work("other"), "quantize"), 3);
  s.numerics_class = "cpu-1";
  s.engine_version = 2;
  ASSERT_OK(s.Submit("jobs/c", s.Spec("gptq", "kl", 1000)));
  EXPECT_EQ(Count(s.Work("newer"), "quantize"), 3);
}

TEST(Engines, AJobWhoseClassHasLeftGoesOnUnderTheClassThatIsThere) {
  Scenario s(3);
  s.Register("old", "incarnation-o");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("old", 3);
  s.engine_version = 2;
  const auto pass = [&s](const char* worker, int seconds) {
    for (int i = 0; i < seconds; i += 10) {
      s.now_us += 10 * kSecond;
      s.Register(worker, absl::StrCat("incarnation-", worker));
      s.Reap();
    }
  };
  // What "old" computed would be lost, so it is waited for; once it is back as another, no longer.
  pass("new", 300);
  EXPECT_EQ(s.num_rebuilds, 0);
  pass("old", 150);
  EXPECT_EQ(s.num_rebuilds, 1);
  EXPECT_THAT(s.records["jobs/a"].job().warnings(), Contains(HasSubstr("is computed again")));
  s.Work("new");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(Engines, OneThatStaysAwayIsNotWaitedForForEver) {
  Scenario s(3);
  s.Register("old", "incarnation-o");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("old", 3);
  s.engine_version = 2;
  for (int i = 0; i < 80; ++i) {
    s.now_us += 10 * kSecond;
    s.Register("new", "incarnation-n");
    s.Reap();
  }
  EXPECT_EQ(s.num_rebuilds, 1);
}

// Each class lacks what the other has: building the job again, under either, leads nowhere.
TEST(Engines, AJobIsNotBuiltAgainForAClassThatCannotRunAllOfIt) {
  Scenario s(3);
  s.numerics_class = "cpu-2";
  s.without_kind = "calibrate";
  s.Register("v", "incarnation-v");
  s.numerics_class = "cpu-1";
  s.without_kind = "quantize";
  s.Register("u", "incarnation-u");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  for (int t = 0; t < 3700; t += 10) {
    s.Work("u");
    s.Work("v");
    s.now_us += 10 * kSecond;
    s.Reap();
  }
  EXPECT_EQ(s.num_rebuilds, 0);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
  EXPECT_EQ(s.records["jobs/a"].job().failure().reason(), "NO_MATCHING_WORKER");
}

TEST(Leaving, NobodyWaitsForAWorkerThatSaidItEnds) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  v1::ReleaseTasksRequest request;
  request.set_worker_id("w");
  request.set_incarnation("incarnation-w");
  request.add_leases()->set_task(lease.task());
  request.mutable_leases(0)->set_epoch(lease.epoch());
  request.set_leaving(true);
  ASSERT_OK(s.Run([&](Draft& draft) { return ReleaseTasks(draft, request); }));
  EXPECT_EQ(s.state().StateOf("w", s.now_us), v1::Worker::LEFT);
  EXPECT_TRUE(s.state().IsLost("w", s.now_us));
  EXPECT_TRUE(s.Lease("w").empty()) << "a call of it that was under way";
  EXPECT_TRUE(s.state().IsLost("w", s.now_us)) << "which says nothing either";
  s.Register("w", "incarnation-2");
  EXPECT_EQ(s.state().StateOf("w", s.now_us), v1::Worker::READY);
  EXPECT_EQ(s.Lease("w").size(), 1u);
}

}  // namespace
}  // namespace lwq
