#include "client/event_text.h"

#include "gtest/gtest.h"

namespace lwq::client {
namespace {

v1::JobEvent TaskEventOf(v1::TaskEvent::State state) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(1'800'000'000);
  v1::TaskEvent& task = *event.mutable_task();
  task.set_task("3f2a90c1d4e5ffff");
  task.set_kind("quantize");
  task.set_layer(0);
  task.set_state(state);
  task.set_worker("w1");
  return event;
}

TEST(EventTextTest, ALineATask) {
  v1::JobEvent event = TaskEventOf(v1::TaskEvent::DONE);
  event.mutable_task()->set_seconds(3.2);
  EXPECT_EQ(EventText(event),
            "2027-01-15T08:00:00Z  quantize layer 0  done in 3.2s on w1  (task 3f2a90c1d4e5)");
  event = TaskEventOf(v1::TaskEvent::LEASED);
  EXPECT_EQ(EventText(event),
            "2027-01-15T08:00:00Z  quantize layer 0  begins on w1  (task 3f2a90c1d4e5)");
  event = TaskEventOf(v1::TaskEvent::RETRY);
  event.mutable_task()->set_detail("lost\x1b");
  EXPECT_EQ(EventText(event),
            "2027-01-15T08:00:00Z  quantize layer 0  will run again on w1: lost\\x1b  (task "
            "3f2a90c1d4e5)");
}

TEST(EventTextTest, ALineAStateAndNoneForProgress) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(1'800'000'000);
  event.mutable_state()->set_from(v1::Job::RUNNING);
  event.mutable_state()->set_to(v1::Job::FAILED);
  event.mutable_state()->mutable_job()->mutable_failure()->set_reason("STORAGE_FULL");
  event.mutable_state()->mutable_job()->mutable_failure()->set_message("no room");
  EXPECT_EQ(EventText(event),
            "2027-01-15T08:00:00Z  job  RUNNING -> FAILED: STORAGE_FULL: no room");
  event.mutable_progress()->set_fraction(0.5);
  EXPECT_EQ(EventText(event), "");
}

}  // namespace
}  // namespace lwq::client
