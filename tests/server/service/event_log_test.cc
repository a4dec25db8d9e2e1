#include "server/service/event_log.h"

#include "gmock/gmock.h"

namespace lwq {
namespace {

v1::JobEvent TaskEventOf(v1::TaskEvent::State state) {
  v1::JobEvent event;
  v1::TaskEvent& task = *event.mutable_task();
  task.set_task("3f2a90c1d4e5ffff");
  task.set_kind("quantize");
  task.set_layer(0);
  task.set_state(state);
  task.set_worker("w1");
  return event;
}

TEST(EventLogTest, ATaskCanBeFollowed) {
  v1::JobEvent event = TaskEventOf(v1::TaskEvent::DONE);
  event.mutable_task()->set_seconds(3.2);
  EXPECT_EQ(EventLogLine("jobs/j-1", event),
            "job=j-1 task=3f2a90c1d4e5 kind=quantize layer=0 done worker=w1 seconds=3.20");
  event = TaskEventOf(v1::TaskEvent::RETRY);
  event.mutable_task()->set_layer(-2);
  event.mutable_task()->set_detail("its worker\nstopped");
  EXPECT_EQ(EventLogLine("jobs/j-1", event),
            "job=j-1 task=3f2a90c1d4e5 kind=quantize retry worker=w1: its worker\\x0astopped");
}

TEST(EventLogTest, AJobsEndSaysWhatCameOfIt) {
  v1::JobEvent event;
  v1::JobStateChange& change = *event.mutable_state();
  change.set_from(v1::Job::RUNNING);
  change.set_to(v1::Job::SUCCEEDED);
  change.mutable_job()->set_artifact("artifacts/j-1");
  EXPECT_EQ(EventLogLine("jobs/j-1", event), "job=j-1 RUNNING -> SUCCEEDED artifacts/j-1");
  change.set_to(v1::Job::FAILED);
  change.mutable_job()->mutable_failure()->set_reason("STORAGE_FULL");
  change.mutable_job()->mutable_failure()->set_message("no room");
  EXPECT_EQ(EventLogLine("jobs/j-1", event), "job=j-1 RUNNING -> FAILED STORAGE_FULL: no room");
}

TEST(EventLogTest, ProgressIsNoNews) {
  v1::JobEvent event;
  event.mutable_progress()->set_fraction(0.5);
  EXPECT_EQ(EventLogLine("jobs/j-1", event), "");
}

}  // namespace
}  // namespace lwq
