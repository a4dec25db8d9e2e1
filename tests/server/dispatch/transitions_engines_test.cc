// Jobs and the classes of workers that compute them, when workers come and go.
#include "gmock/gmock.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Count;
using ::lwq::testing::FailsWith;
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

absl::Status SayThatItLeaves(Scenario& s, const std::string& worker) {
  v1::ReleaseTasksRequest request;
  request.set_worker_id(worker);
  request.set_incarnation(absl::StrCat("incarnation-", worker));
  request.set_leaving(true);
  return s.Run([&](Draft& draft) { return ReleaseTasks(draft, request); });
}

TEST(Leaving, NobodyWaitsForAWorkerThatSaidItEnds) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_EQ(s.Lease("w").size(), 1u);  // of which it did not hear
  ASSERT_OK(SayThatItLeaves(s, "w"));
  EXPECT_EQ(s.state().StateOf("w", s.now_us), v1::Worker::LEFT);
  EXPECT_TRUE(s.state().IsLost("w", s.now_us));
  v1::LeaseTasksRequest poll;  // a call of it that was under way
  poll.set_worker_id("w");
  poll.set_incarnation("incarnation-w");
  EXPECT_THAT(s.Run([&](Draft& draft) { return LeaseTasks(draft, poll).status(); }),
              FailsWith("WORKER_UNKNOWN", HasSubstr("register first")));
  EXPECT_TRUE(s.state().IsLost("w", s.now_us)) << "which says nothing either";
  s.Register("w", "incarnation-2");
  EXPECT_EQ(s.state().StateOf("w", s.now_us), v1::Worker::READY);
  EXPECT_EQ(s.Lease("w").size(), 1u);
}

// An upgrade: pods of other names follow, and what was computed is no reason to wait for those before.
TEST(Leaving, AJobThatBeganGoesOnAtOnceUnderTheClassThatIsThere) {
  for (const bool says_so : {true, false}) {
    Scenario s(3);
    s.Register("old", "incarnation-old");
    ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
    s.Work("old", 3);
    if (says_so) {
      ASSERT_OK(SayThatItLeaves(s, "old"));
    }
    s.engine_version = 2;
    for (int i = 0; i < 15; ++i) {
      s.now_us += 10 * kSecond;
      s.Register("new", "incarnation-new");
      s.Reap();
    }
    EXPECT_EQ(s.num_rebuilds, says_so ? 1 : 0);
  }
}

}  // namespace
}  // namespace lwq
