#include "server/dispatch/task_wait.h"

#include "gmock/gmock.h"
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
