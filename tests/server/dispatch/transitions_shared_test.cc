// Tasks that many jobs share: what one transition may cost, and that every job hears of them.
#include "records/canonical.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

constexpr int kJobs = 3 * kJobsToldAtOnce;

std::string NameOf(int number) { return absl::StrCat("jobs/j", 1000 + number); }

int TimesTold(Scenario& s, const std::string& job, const std::string& task,
              v1::TaskEvent::State state) {
  int times = 0;
  for (const v1::JobEvent& event : s.events[job]) {
    times += event.task().task() == task && event.task().state() == state;
  }
  return times;
}

// All jobs want the same; the first of what they want is done.
std::string FinishOneOfAll(Scenario& s) {
  s.Register("w", "incarnation-1");
  for (int i = 0; i < kJobs; ++i) {
    EXPECT_OK(s.Submit(NameOf(i), s.Spec("rtn", "kl", 1000)));
  }
  s.tell_later = true;
  const v1::Lease lease = s.Lease("w").at(0);
  EXPECT_EQ(s.jobs_written, static_cast<size_t>(kJobsToldAtOnce));
  EXPECT_OK(s.Complete("w", lease));
  EXPECT_EQ(s.jobs_written, static_cast<size_t>(kJobsToldAtOnce));
  return lease.task();
}

TEST(SharedTasks, JobsHearOfThemAFewAtATimeAndEachOnce) {
  Scenario s;
  const std::string task = FinishOneOfAll(s);
  EXPECT_EQ(TimesTold(s, NameOf(0), task, v1::TaskEvent::DONE), 1);
  EXPECT_EQ(TimesTold(s, NameOf(kJobs - 1), task, v1::TaskEvent::DONE), 0);
  s.TellAll();
  s.tell_later = false;
  s.Work("w");
  for (int i = 0; i < kJobs; ++i) {
    const std::string job = NameOf(i);
    EXPECT_EQ(s.StateOf(job), v1::Job::SUCCEEDED) << job;
    EXPECT_EQ(s.records[job].job().evaluations_size(), 2) << job;
    EXPECT_EQ(TimesTold(s, job, task, v1::TaskEvent::DONE), 1) << job;
    int64_t seq = 0;
    for (const v1::JobEvent& event : s.events[job]) ASSERT_EQ(event.seq(), ++seq) << job;
  }
  for (const auto& [key, record] : s.state().tasks()) EXPECT_TRUE(record.untold().empty());
}

TEST(SharedTasks, AJobThatEndsFirstHearsBeforeItsEnd) {
  Scenario s;
  const std::string task = FinishOneOfAll(s);
  const std::string job = NameOf(kJobs - 1);
  ASSERT_OK(s.Run([&](Draft& draft) { return CancelJob(draft, job); }));
  ASSERT_EQ(s.StateOf(job), v1::Job::CANCELLED);
  s.TellAll();
  EXPECT_EQ(TimesTold(s, job, task, v1::TaskEvent::DONE), 1);
  EXPECT_EQ(s.events[job].back().state().to(), v1::Job::CANCELLED);
}

// Jobs that hear of their tasks later have all evaluations in the end.
TEST(SharedTasks, EveryJobEndsWithItsEvaluations) {
  Scenario s;
  s.tell_later = true;
  s.Register("w", "incarnation-1");
  for (int i = 0; i < kJobs; ++i) {
    ASSERT_OK(s.Submit(NameOf(i), s.Spec("rtn", "kl", 1000)));
  }
  for (int round = 0; round < 1000 && s.StateOf(NameOf(0)) != v1::Job::SUCCEEDED; ++round) {
    s.Work("w");
    s.TellAll();
  }
  for (int i = 0; i < kJobs; ++i) {
    EXPECT_EQ(s.records[NameOf(i)].job().evaluations_size(), 2) << i;
  }
}

// Nor is what a transition writes, however many jobs want the same.
TEST(SharedTasks, OneMoreJobWritesNoTaskThatOthersWant) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit(NameOf(0), s.Spec("rtn", "kl", 1000)));
  EXPECT_GT(s.tasks_written, 0u);
  for (int i = 1; i < 4; ++i) {
    ASSERT_OK(s.Submit(NameOf(i), s.Spec("rtn", "kl", 1000)));
    EXPECT_EQ(s.tasks_written, 0u) << i;
  }
  for (const auto& [key, task] : s.state().tasks()) EXPECT_EQ(task.jobs_size(), 4);
}

// The rows of tasks are of before jobs joined them; jobs' own rows say what they want.
TEST(SharedTasks, AStartFindsTheJobsThatJoinedATaskLater) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit(NameOf(0), s.Spec("rtn", "kl", 1000)));
  const std::map<std::string, v1::TaskRecord> rows = s.state().tasks();
  ASSERT_OK(s.Submit(NameOf(1), s.Spec("rtn", "kl", 1000)));
  DispatchState fresh(Scenario::Options());
  for (const auto& [name, job] : s.state().jobs()) fresh.Load(job);
  for (const auto& [key, task] : rows) fresh.Load(task, s.Now());
  ASSERT_FALSE(rows.empty());
  for (const auto& [key, task] : s.state().tasks()) {
    EXPECT_EQ(CanonicalBytes(fresh.tasks().at(key)), CanonicalBytes(task));
  }
}

TEST(SharedTasks, TheBestOfTheirJobsDecidesHowSoonTheyRun) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/alone", s.Spec("gptq", "kl", 1000)));
  for (const char* job : {"jobs/a", "jobs/b", "jobs/c"}) {
    ++s.now_us;
    ASSERT_OK(s.Submit(job, s.Spec("rtn", "zd", 1000)));
  }
  const auto priority_of_first = [&] {
    return std::get<0>(
        *s.state().ready().groups().begin()->second.lines.begin()->second.ranks.begin());
  };
  const auto update = [&](const char* job, v1::Job::Priority priority) {
    v1::UpdateJobRequest request;
    request.set_name(job);
    request.set_priority(priority);
    ASSERT_OK(s.Run([&](Draft& draft) { return UpdateJob(draft, request); }));
  };
  update("jobs/c", v1::Job::HIGH);
  EXPECT_EQ(priority_of_first(), -v1::Job::HIGH);
  ++s.now_us;
  ASSERT_OK(s.Submit("jobs/d", s.Spec("rtn", "zd", 1000)));
  EXPECT_EQ(priority_of_first(), -v1::Job::HIGH);
  update("jobs/c", v1::Job::LOW);
  EXPECT_EQ(priority_of_first(), -v1::Job::NORMAL);
  update("jobs/b", v1::Job::HIGH);
  ASSERT_OK(s.Run([](Draft& draft) { return CancelJob(draft, "jobs/b"); }));
  EXPECT_EQ(priority_of_first(), -v1::Job::NORMAL);
}

}  // namespace
}  // namespace lwq
