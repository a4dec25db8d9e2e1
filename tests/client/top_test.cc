#include "client/top.h"

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"

namespace lwq::client {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::vector<v1::Worker> SomeWorkers() {
  v1::Worker busy;
  busy.set_name("workers/w1");
  busy.set_state(v1::Worker::BUSY);
  v1::RunningTask* task = busy.add_running();
  task->set_kind("score");
  task->set_layer(0);
  task->set_seconds(12);
  task->set_fraction(0.5);
  task->add_jobs("jobs/j-1");
  task->add_jobs("jobs/j-2");
  v1::Worker lost;
  lost.set_name("workers/w2");
  lost.set_state(v1::Worker::LOST);
  lost.set_cordoned(true);
  return {busy, lost};
}

v1::Job SomeJob() {
  v1::Job job;
  job.set_name("jobs/j-1");
  job.set_state(v1::Job::RUNNING);
  job.set_phase(v1::SCORE);
  job.mutable_progress()->set_fraction(0.25);
  job.mutable_progress()->set_tasks_done(3);
  job.mutable_progress()->set_tasks_total(9);
  job.mutable_progress()->set_remaining_seconds(40);
  return job;
}

TEST(TopTest, WorkersWithWhatTheyDoThenJobs) {
  EXPECT_EQ(absl::StrJoin(TopLines(SomeWorkers(), {SomeJob()}, 0, 0), "\n"),
            "1 worker, 1 busy; 1 job active\n"
            "\n"
            "WORKER  STATE           TASK           FOR  DONE  JOB             TASKS\n"
            "w1      BUSY            score layer 0  12s   50%  j-1 and 1 more      0\n"
            "w2      LOST, cordoned                                                0\n"
            "\n"
            "JOB  STATE    PHASE  DONE  TASKS  LEFT        NOTE\n"
            "j-1  RUNNING  score   25%    3/9  about 40 s");
}

TEST(TopTest, FitsTheTerminal) {
  const std::vector<std::string> lines = TopLines(SomeWorkers(), {SomeJob()}, 30, 5);
  EXPECT_THAT(lines, SizeIs(5));
  EXPECT_THAT(lines, Each(::testing::ResultOf([](const std::string& l) { return l.size(); },
                                              ::testing::Le(30u))));
}

TEST(TopTest, NothingIsThere) {
  EXPECT_THAT(TopLines({}, {}, 80, 0)[0], HasSubstr("0 workers, 0 busy; 0 jobs active"));
}

}  // namespace
}  // namespace lwq::client
