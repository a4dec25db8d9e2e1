// Leases and waits are measured by a clock that only runs, while the server itself does.
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

constexpr int64_t kSecond = 1'000'000;

TEST(Time, AServerThatStoodStillHasNotLookedForWorkersMeanwhile) {
  Scenario s;
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  s.now_us += 10 * kSecond;
  s.Reap();
  s.Stall(7200 * kSecond);
  s.Reap();
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::QUEUED);
  s.now_us += 3600 * kSecond;
  s.Reap();
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
}

TEST(Time, ALeaseIsMeasuredByTheSteadyClock) {
  Scenario s;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  for (const int64_t jump : {3600, -7200}) {
    s.wall_offset_us += jump * kSecond;
    s.Reap();
    EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  }
  s.now_us += 31 * kSecond;
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::LEASE_LOST);
}

TEST(Time, ATaskThatWaitsToRunAgainWaitsAsLongWhateverTheWallClockSays) {
  Scenario s;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Fail("w", lease, "STORE_UNAVAILABLE"));
  s.wall_offset_us -= 3600 * kSecond;
  s.now_us += 2 * kSecond;
  const std::vector<v1::Lease> again = s.Lease("w", 8);
  EXPECT_TRUE(std::any_of(again.begin(), again.end(),
                          [&](const v1::Lease& l) { return l.task() == lease.task(); }));
}

// What hands it out sooner wakes no poll, and what hands it out later keeps workers idle.
TEST(Time, AChangeOfPriorityLeavesATasksWaitAsItWas) {
  for (const int64_t jump : {-3600 * kSecond, 3600 * kSecond}) {
    Scenario s;
    s.Register("w", "incarnation-w");
    ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
    const v1::Lease lease = s.Lease("w").at(0);
    const auto is_ready = [&] {
      const std::vector<v1::Lease> leases = s.Lease("w", 8);
      return std::any_of(leases.begin(), leases.end(),
                         [&](const v1::Lease& l) { return l.task() == lease.task(); });
    };
    ASSERT_OK(s.Fail("w", lease, "STORE_UNAVAILABLE"));
    s.wall_offset_us += jump;
    v1::UpdateJobRequest update;
    update.set_name("jobs/a");
    update.set_priority(v1::Job::HIGH);
    ASSERT_OK(s.Run([&](Draft& draft) { return UpdateJob(draft, update); }));
    EXPECT_FALSE(is_ready());
    s.now_us += 2 * kSecond;
    EXPECT_TRUE(is_ready());
  }
}

TEST(Time, AServerThatStoodStillGivesEveryLeaseItsTimeAgain) {
  Scenario s;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  s.Stall(3600 * kSecond);
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  s.Stall(3600 * kSecond);
  s.Reap();
  s.now_us += 31 * kSecond;  // but a worker that is dead is noticed afterwards
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::LEASE_LOST);
}

TEST(Time, ALongStepThatKeepsItsWorkerBusyIsNoStall) {
  Scenario s;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  const auto work_on = [&](int seconds) {
    v1::LeaseDirective::Directive directive = v1::LeaseDirective::CONTINUE;
    for (int t = 0; t < seconds; t += 10) {
      s.now_us += 10 * kSecond;
      s.Reap();
      directive = s.BusyBeat("w", lease, ++s.busy_seconds).directives(0).directive();
    }
    return directive;
  };
  EXPECT_EQ(work_on(3600), v1::LeaseDirective::CONTINUE) << "an hour in one linear";
  EXPECT_EQ(work_on(3 * 3600), v1::LeaseDirective::LEASE_LOST) << "but not for ever";
}

// An operator's word holds for the worker's name, however often its process is started anew.
TEST(Time, AWorkerThatWasDrainedIsNotForgottenBeforeItsTime) {
  Scenario s;
  const auto cordon = [&](const char* worker, bool by_server) {
    EXPECT_OK(s.Run([&](Draft& draft) {
      draft.EditWorker(worker)->set_cordoned(true);
      draft.EditWorker(worker)->set_cordoned_us(draft.now_us());
      if (by_server) draft.EditWorker(worker)->set_cordon_reason("failed what others did");
      return absl::OkStatus();
    }));
  };
  for (const char* worker : {"drained", "faulty", "open"}) s.Register(worker, "incarnation-1");
  cordon("drained", false);
  cordon("faulty", true);
  s.now_us += Scenario::Options().gone_us + kSecond;
  s.Reap();
  ASSERT_EQ(s.state().workers().size(), 1u);
  s.Register("drained", "incarnation-2");
  EXPECT_TRUE(s.state().workers().at("drained").cordoned());
  s.Stall(kCordonKeptUs);
  s.now_us += Scenario::Options().gone_us;
  s.Reap();
  EXPECT_TRUE(s.state().workers().empty());
}

}  // namespace
}  // namespace lwq
