#include "server/dispatch/task_wait.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/dispatch/work_estimate.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class TaskWaitTest : public ::testing::Test {
 protected:
  std::string WhyJob(const std::string& job) const {
    return WhyJobWaits(Draft(s_.state(), s_.Now()), s_.state().jobs().at(job));
  }
  std::string WhyKind(const std::string& kind) const {
    for (const auto& [key, task] : s_.state().tasks()) {
      if (task.kind() == kind) return WhyItWaits(Draft(s_.state(), s_.Now()), task);
    }
    return "no such task";
  }
  void Cordon(const std::string& id) {
    EXPECT_OK(s_.Run([&](Draft& draft) {
      draft.EditWorker(id)->set_cordoned(true);
      return absl::OkStatus();
    }));
  }

  Scenario s_;
};

TEST_F(TaskWaitTest, WithoutWorkers) {
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("no worker has registered"));
}

TEST_F(TaskWaitTest, SaysWhyEachWorkerTakesNothing) {
  s_.Register("w1", "i1");
  s_.Register("w2", "i2");
  s_.families = {"mistral"};
  s_.Register("w3", "i3");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w1 is free"));
  Cordon("w1");
  s_.now_us += LostAfterUs(s_.state().options());
  EXPECT_THAT(WhyJob("jobs/a"),
              AllOf(HasSubstr("no worker can take it"), HasSubstr("w1 is cordoned"),
                    HasSubstr("w2 was last heard of 60 s ago"),
                    HasSubstr("w3 does not read models of family llama")));
}

// Long before it is lost, by which jobs are decided.
TEST_F(TaskWaitTest, AWorkerThatStoppedAskingIsNoFreeOne) {
  s_.Register("w1", "i1");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  s_.now_us += kBetweenCallsUs - 1;
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w1 is free"));
  s_.now_us += 1;
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("w1 was last heard of 10 s ago"));
  DispatchState& state = const_cast<DispatchState&>(s_.state());
  state.CountPoll("w1", 1);
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w1 is free"));
  state.CountPoll("w1", -1);
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("w1 was last heard of 10 s ago"));
}

TEST_F(TaskWaitTest, AWorkerThatWasKilledAtWorkIsSilentAfterTwoHeartbeats) {
  s_.Register("w1", "i1");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  const auto leases = s_.Lease("w1");
  ASSERT_EQ(leases.size(), 1u);
  const v1::TaskRecord& task = s_.state().tasks().at(leases[0].task());
  const int64_t seen = s_.now_us;
  const_cast<DispatchState&>(s_.state()).SawWorker("w1", seen);
  const auto stands = [&] { return WhyItStands(Draft(s_.state(), s_.Now()), task); };
  const int64_t two_beats = 2 * s_.state().options().heartbeat_us;
  s_.now_us = seen + two_beats - 1;
  EXPECT_EQ(s_.state().StateOf("w1", s_.now_us), v1::Worker::BUSY);
  EXPECT_THAT(stands(), IsEmpty());
  s_.now_us = seen + two_beats;
  EXPECT_EQ(s_.state().StateOf("w1", s_.now_us), v1::Worker::SILENT);
  EXPECT_THAT(stands(), "w1 was last heard of 20 s ago; in 10 s another one may take it");
  // Nothing is decided by it: what it says next is of the same lease.
  EXPECT_EQ(s_.Beat("w1", leases[0]).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  EXPECT_EQ(s_.state().StateOf("w1", s_.now_us), v1::Worker::BUSY);
}

TEST_F(TaskWaitTest, WhatAWorkerWaitsForIsSaidOfItsTask) {
  s_.Register("w1", "i1");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  const auto leases = s_.Lease("w1");
  ASSERT_EQ(leases.size(), 1u);
  s_.Beat("w1", leases[0], "the server's storage is full: 5 bytes free");
  const Draft draft(s_.state(), s_.Now());
  v1::JobRecord job = s_.state().jobs().at("jobs/a");
  AddLiveProgress(draft, job);
  ASSERT_EQ(job.job().progress().running_size(), 1);
  EXPECT_EQ(job.job().progress().running(0).waits_for(),
            "the server's storage is full: 5 bytes free");
  EXPECT_THAT(job.job().progress().current(), HasSubstr(": the server's storage is full"));
  v1::TaskStatus status;
  AddLiveStatus(draft, s_.state().tasks().at(leases[0].task()), status);
  EXPECT_EQ(status.detail(), "the server's storage is full: 5 bytes free");
}

TEST_F(TaskWaitTest, WhatIsSaidOfManyWorkersIsUpToASecondOld) {
  for (size_t i = 0; i < kManyWorkers; ++i) s_.Register(absl::StrCat("w", i), "i");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w0 is free"));
  Cordon("w0");
  s_.now_us += kRememberedUs - 1;
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w0 is free"));
  s_.now_us += 1;
  EXPECT_THAT(WhyJob("jobs/a"), HasSubstr("worker w1 is free"));
}

TEST_F(TaskWaitTest, ABusyWorkerIsWaitedFor) {
  s_.Register("w1", "i1");
  ASSERT_OK(s_.Submit("jobs/a", s_.Spec("gptq", "kl", 1 << 30)));
  s_.Work("w1", 1);
  ASSERT_FALSE(s_.Lease("w1").empty());
  EXPECT_THAT(WhyJob("jobs/a"), IsEmpty());  // something of it runs
  EXPECT_THAT(WhyKind("assemble"), "no such task");
  EXPECT_THAT(WhyKind("score"), StartsWith("comes after "));
  ASSERT_OK(s_.Submit("jobs/b", s_.Spec("rtn", "lim", 1 << 30)));
  EXPECT_THAT(WhyJob("jobs/b"), HasSubstr("waits for a free worker; 1 is busy"));
}

}  // namespace
}  // namespace lwq::testing
