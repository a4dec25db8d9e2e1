// Jobs that are cancelled: what runs for them, and what others take over of it.
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

TEST(Transitions, CancelWhileRunningWaitsForTheWorkerAndKeepsItsResult) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLING);
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CANCEL);
  ASSERT_OK(s.Complete("w", lease));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  EXPECT_EQ(s.cache.count(lease.task()), 1u);
  EXPECT_TRUE(s.state().tasks().empty());
  EXPECT_TRUE(s.Lease("w").empty());
}

TEST(Transitions, CancelOfAQueuedJobEndsItAtOnce) {
  Scenario s;
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  EXPECT_TRUE(s.state().tasks().empty());
}

TEST(Transitions, CancelOfOneOfTwoJobsLeavesTheSharedWorkAlone) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

// A job that is cancelled while two of its tasks run: `end` ends one of them.
void CancelWhileTwoRun(Scenario& s, const std::function<void(const v1::Lease&)>& end) {
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "kl", 1000)));
  const std::vector<v1::Lease> leases = s.Lease("w", 2);
  ASSERT_EQ(leases.size(), 2);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  end(leases[0]);
  ASSERT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLING);
}

TEST(Transitions, ATaskThatACancelledJobGaveUpBeginsAnewForAnotherJob) {
  Scenario s;
  CancelWhileTwoRun(s, [&](const v1::Lease& lease) {
    ASSERT_OK(s.Fail("w", lease, "INTERNAL", absl::StatusCode::kInternal));
    ASSERT_EQ(s.state().tasks().at(lease.task()).state(), v1::TaskRecord::FAILED);
  });
  ASSERT_OK(s.Submit("jobs/b", s.Spec("rtn", "kl", 900)));
  s.now_us += 31'000'000;  // the other's lease runs out
  s.Reap();
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

TEST(Transitions, PollsAreWokenForWhatAnotherJobTakesOverOfACancelledOne) {
  Scenario s;
  CancelWhileTwoRun(s, [&](const v1::Lease& lease) { ASSERT_OK(s.Release("w", lease)); });
  ASSERT_TRUE(s.Lease("w", 8).empty());
  const int64_t woken = s.woken;
  ASSERT_OK(s.Submit("jobs/b", s.Spec("rtn", "kl", 900)));
  const int64_t told = s.woken - woken;
  EXPECT_EQ(told, static_cast<int64_t>(s.Lease("w", 8).size()));
}

TEST(Transitions, ACancelledJobEndsWhenAnotherJobTakesItsRunningTaskOver) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  ASSERT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLING);
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

}  // namespace
}  // namespace lwq
