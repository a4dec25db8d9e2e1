#include "client/explain.h"

#include "client/progress.h"
#include "gmock/gmock.h"

namespace lwq::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::TaskStatus Task(const std::string& kind, int layer, const std::string& state) {
  v1::TaskStatus task;
  task.set_task("3f2a90c1d4e5ffff");
  task.set_kind(kind);
  task.set_layer(layer);
  task.set_state(state);
  return task;
}

v1::Job JobIn(v1::Job::State state) {
  v1::Job job;
  job.set_name("jobs/j-1");
  job.set_state(state);
  job.mutable_progress()->set_fraction(0.42);
  job.mutable_progress()->set_tasks_total(10);
  job.mutable_progress()->set_tasks_done(4);
  return job;
}

TEST(ExplainTest, WhatRunsAndWhatWaits) {
  v1::TaskStatus running = Task("score", 0, "LEASED");
  running.set_worker("w1");
  running.set_running_seconds(12);
  running.set_fraction(0.5);
  v1::TaskStatus ready = Task("score", 1, "READY");
  ready.set_detail("waits for a free worker; 1 is busy");
  v1::Job job = JobIn(v1::Job::RUNNING);
  job.mutable_progress()->set_remaining_seconds(120);
  const std::string text = ExplainJob(
      job, {running, ready, Task("assemble", -2, "BLOCKED"), Task("verify", -2, "BLOCKED")});
  EXPECT_EQ(text,
            "jobs/j-1 is RUNNING, 42% done, 4 of 10 tasks (0 of them from the cache)\n"
            "about 2 min left, with the workers there are now\n"
            "runs now:\n"
            "  score layer 0 on w1 for 12s, 50%\n"
            "ready to run:\n"
            "  score layer 1 (task 3f2a90c1d4e5): waits for a free worker; 1 is busy\n"
            "waits for others:\n"
            "  1 assemble 1 verify\n"
            "next: lwqctl watch j-1, or lwqctl logs j-1 --follow\n");
}

TEST(ExplainTest, WhyNothingRuns) {
  v1::Job job = JobIn(v1::Job::QUEUED);
  job.set_queue_detail("1 task is ready: no worker can take it: w1 is cordoned");
  EXPECT_THAT(ExplainJob(job, {}),
              AllOf(HasSubstr("nothing of it runs: 1 task is ready"), HasSubstr("lwqctl workers")));
}

TEST(ExplainTest, AJobThatIsHeldWaitsForNoWorker) {
  v1::Job job = JobIn(v1::Job::QUEUED);
  job.set_queue_detail("held: tenant blue may have 1 job at work, and has them");
  EXPECT_THAT(ExplainJob(job, {}),
              AllOf(HasSubstr("begins as others of its tenant end"), Not(HasSubstr("workers"))));
}

TEST(ExplainTest, WhichTaskFailedWhereAndWhatNext) {
  v1::TaskStatus failed = Task("quantize", 3, "FAILED");
  failed.set_attempt(2);
  failed.set_lost(1);
  failed.mutable_failure()->set_reason("STORAGE_FULL");
  failed.mutable_failure()->set_message("no room in /data");
  failed.mutable_failure()->set_worker("w2");
  v1::Job job = JobIn(v1::Job::FAILED);
  *job.mutable_failure() = failed.failure();
  EXPECT_THAT(ExplainJob(job, {failed}),
              AllOf(HasSubstr("quantize layer 3 (task 3f2a90c1d4e5), failed 2 times, its worker "
                              "lost 1 times, last by STORAGE_FULL: no room in /data (worker w2)"),
                    HasSubstr("next: free disk space"), HasSubstr("lwqctl retry j-1")));
}

TEST(ExplainTest, OfAJobThatFailedNothingRunsAndTheTasksAreCounted) {
  for (const v1::Job::State state : {v1::Job::FAILED, v1::Job::CANCELLED}) {
    v1::Job job = JobIn(state);
    job.mutable_progress()->set_fraction(0);
    EXPECT_THAT(ExplainJob(job, {Task("plan", -2, "LEASED"), Task("score", 1, "READY"),
                                 Task("quantize", 1, "BLOCKED")}),
                AllOf(HasSubstr(", 4 of 10 tasks were done (0 of"), Not(HasSubstr("%")),
                      Not(HasSubstr("runs now")), Not(HasSubstr("ready to run")),
                      Not(HasSubstr("waits for others"))));
    EXPECT_EQ(DoneText(job), "4/10");
  }
  EXPECT_EQ(DoneText(JobIn(v1::Job::RUNNING)), "42% 4/10");
}

TEST(ExplainTest, WhatWasAskedWronglyIsNotRetried) {
  for (const char* reason : {"DATASET_INVALID", "BUDGET_INFEASIBLE", "NON_FINITE_WEIGHTS"}) {
    v1::Job job = JobIn(v1::Job::FAILED);
    job.mutable_failure()->set_reason(reason);
    EXPECT_THAT(ExplainJob(job, {}),
                AllOf(HasSubstr("; then submit it anew"), Not(HasSubstr("goes on where it was"))));
  }
}

TEST(ExplainTest, AFinishedJobPointsToItsArtifact) {
  v1::Job job = JobIn(v1::Job::SUCCEEDED);
  job.set_artifact("artifacts/j-1");
  EXPECT_THAT(ExplainJob(job, {Task("score", 0, "DONE")}),
              AllOf(HasSubstr("lwqctl artifact get jobs/j-1"), Not(HasSubstr("trouble"))));
}

TEST(ExplainTest, ManyTasksAreCut) {
  const std::vector<v1::TaskStatus> tasks(100, Task("score", 0, "READY"));
  EXPECT_THAT(ExplainJob(JobIn(v1::Job::RUNNING), tasks), HasSubstr("and 92 more\n"));
}

TEST(ExplainTest, WhyWhatRunsDoesNotGetOn) {
  v1::TaskStatus running = Task("quantize", 0, "LEASED");
  running.set_worker("w1");
  running.set_running_seconds(12);
  running.set_current("down_proj");
  running.set_detail("the server's storage is full: 5 bytes free");
  v1::Job job = JobIn(v1::Job::RUNNING);
  job.mutable_progress()->add_running()->set_waits_for(running.detail());
  EXPECT_THAT(ExplainJob(job, {running}),
              AllOf(HasSubstr("quantize layer 0 on w1 for 12s: the server's storage is full: 5 "
                              "bytes free\n"),
                    HasSubstr("next: lwqctl workers, or lwqctl doctor")));
}

}  // namespace
}  // namespace lwq::client
