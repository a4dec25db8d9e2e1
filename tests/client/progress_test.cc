#include "client/progress.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::client {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

void AddPhase(v1::Progress* progress, v1::Phase phase, int done, int total, int cached,
              double seconds) {
  v1::PhaseProgress* added = progress->add_phases();
  added->set_phase(phase);
  added->set_tasks_done(done);
  added->set_tasks_total(total);
  added->set_tasks_cached(cached);
  added->set_seconds(seconds);
}

v1::JobEvent ProgressEvent(double fraction, int done) {
  v1::JobEvent event;
  v1::Progress* progress = event.mutable_progress();
  progress->set_fraction(fraction);
  progress->set_tasks_total(40);
  progress->set_tasks_done(done);
  AddPhase(progress, v1::QUANTIZE, done, 32, 3, 151);
  return event;
}

// Of a job that was submitted 90 s ago by a server whose clock is an hour ahead.
v1::JobEvent Snapshot() {
  v1::JobEvent event;
  const int64_t server_now = absl::ToUnixSeconds(kNow + absl::Hours(1));
  event.mutable_time()->set_seconds(server_now);
  v1::Job* job = event.mutable_snapshot();
  job->set_name("jobs/j-1");
  job->set_state(v1::Job::RUNNING);
  job->mutable_create_time()->set_seconds(server_now - 90);
  v1::Progress* progress = job->mutable_progress();
  progress->set_fraction(0.5);
  progress->set_tasks_total(60);
  progress->set_tasks_done(24);
  progress->set_tasks_running(1);
  progress->set_remaining_seconds(130);
  v1::RunningTask* running = progress->add_running();
  running->set_kind("quantize");
  running->set_layer(0);
  running->set_worker("w1");
  running->set_seconds(12);
  running->set_fraction(0.25);
  AddPhase(progress, v1::CALIBRATE, 8, 8, 0, 112);
  AddPhase(progress, v1::QUANTIZE, 16, 32, 3, 151);
  AddPhase(progress, v1::EVALUATE, 0, 12, 0, 0);
  return event;
}

TEST(ProgressViewTest, OneBarAPhaseALineForAllAndWhatRuns) {
  ProgressView view;
  view.Apply(Snapshot(), kNow);
  EXPECT_THAT(view.Lines(100, kNow),
              ElementsAre("calibrate  [####################]   8/8      1m52s",
                          "quantize   [##########..........]  16/32     2m31s  cached 3",
                          "evaluate   [....................]   0/12 ",
                          " 50%  1:30 elapsed, about 2 min left  j-1 RUNNING  24/60 tasks",
                          "now: quantize layer 0 on w1 for 12s, 25%"));
}

TEST(ProgressViewTest, TimeGoesOnBetweenEvents) {
  ProgressView view;
  view.Apply(Snapshot(), kNow);
  const absl::Time later = kNow + absl::Seconds(100);
  EXPECT_THAT(view.StatusLine(later), HasSubstr("3:10 elapsed, about 30 s left"));
  EXPECT_THAT(view.Lines(100, later), Contains("now: quantize layer 0 on w1 for 1m52s, 25%"));
  // An estimate that turned out too short is no negative time.
  EXPECT_THAT(view.StatusLine(kNow + absl::Hours(1)), HasSubstr("a few seconds left"));
}

TEST(ProgressViewTest, ABarFollowsTheWorkOfItsPhase) {
  ProgressView view;
  v1::JobEvent event = ProgressEvent(0.3, 0);
  event.mutable_progress()->mutable_phases(0)->set_fraction(0.75);
  view.Apply(event, kNow);
  EXPECT_THAT(view.Lines(100, kNow)[0], HasSubstr("[###############.....]   0/32"));
}

TEST(ProgressViewTest, WithoutAnEstimateNothingIsClaimed) {
  ProgressView view;
  v1::JobEvent event = Snapshot();
  event.mutable_snapshot()->mutable_progress()->clear_remaining_seconds();
  view.Apply(event, kNow);
  EXPECT_THAT(view.StatusLine(kNow), AllOf(HasSubstr("1:30 elapsed  j-1"), Not(HasSubstr("left"))));
}

TEST(ProgressViewTest, ABarNeverGoesBack) {
  ProgressView view;
  view.Apply(ProgressEvent(0.6, 20), kNow);
  view.Apply(ProgressEvent(0.4, 12), kNow);
  const std::vector<std::string> lines = view.Lines(100, kNow);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[0], HasSubstr(" 20/32"));
  EXPECT_THAT(lines[1], StartsWith(" 60%"));
}

TEST(ProgressViewTest, ANewGenerationStartsAgain) {
  ProgressView view;
  view.Apply(ProgressEvent(0.6, 20), kNow);
  v1::JobEvent event;
  event.mutable_state()->set_to(v1::Job::QUEUED);
  event.mutable_state()->mutable_job()->set_generation(1);
  view.Apply(event, kNow);
  EXPECT_THAT(view.Lines(100, kNow), ElementsAre("  0%  QUEUED"));
}

TEST(ProgressViewTest, WhatAJobWaitedForIsForgottenOnceSomethingRuns) {
  ProgressView view;
  v1::JobEvent event;
  event.mutable_snapshot()->set_state(v1::Job::QUEUED);
  event.mutable_snapshot()->set_queue_detail("2 tasks are ready: w1 is cordoned");
  view.Apply(event, kNow);
  EXPECT_THAT(view.Lines(100, kNow), Contains("now: 2 tasks are ready: w1 is cordoned"));
  event = ProgressEvent(0.1, 1);
  event.mutable_progress()->set_tasks_running(1);
  event.mutable_progress()->add_running()->set_kind("score");
  view.Apply(event, kNow);
  EXPECT_THAT(view.Lines(100, kNow), Not(Contains(HasSubstr("cordoned"))));
}

TEST(ProgressViewTest, LinesFitTheWidthAndEscapeControls) {
  ProgressView view;
  v1::JobEvent event = Snapshot();
  event.mutable_snapshot()->set_queue_detail("\x1b[31m" + std::string(200, 'x'));
  event.mutable_snapshot()->mutable_progress()->clear_running();
  event.mutable_snapshot()->mutable_progress()->set_tasks_running(0);
  view.Apply(event, kNow);
  const std::vector<std::string> lines = view.Lines(40, kNow);
  EXPECT_THAT(lines, Contains(StartsWith("now: \\x1b")));
  for (const std::string& line : lines) {
    EXPECT_LE(line.size(), 40u);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
  EXPECT_EQ(lines[1], "quantize   [####.....]  16/32     2m31s");
  // What matters most comes first.
  EXPECT_THAT(lines[3], StartsWith(" 50%  1:30 elapsed, about 2 min left"));
}

TEST(ProgressViewTest, EventLinesForAPipe) {
  v1::JobEvent event;
  v1::TaskEvent* task = event.mutable_task();
  task->set_kind("quantize");
  task->set_layer(3);
  task->set_state(v1::TaskEvent::DONE);
  task->set_seconds(1.25);
  task->set_worker("w1");
  EXPECT_EQ(ProgressView::EventLine(event), "quantize layer 3: done in 1.2s on w1");
  task->set_state(v1::TaskEvent::LEASED);
  EXPECT_EQ(ProgressView::EventLine(event), "");
  task->set_state(v1::TaskEvent::CACHED);
  task->set_layer(-2);
  task->clear_worker();
  EXPECT_EQ(ProgressView::EventLine(event), "quantize: cached");
  event.mutable_bookmark();
  EXPECT_EQ(ProgressView::EventLine(event), "");
  event.mutable_state()->set_from(v1::Job::QUEUED);
  event.mutable_state()->set_to(v1::Job::RUNNING);
  EXPECT_EQ(ProgressView::EventLine(event), "job: QUEUED -> RUNNING");
}

TEST(ClockTextTest, CountsLikeAClock) {
  EXPECT_EQ(ClockText(absl::Seconds(7)), "0:07");
  EXPECT_EQ(ClockText(absl::Seconds(12 * 60 + 31)), "12:31");
  EXPECT_EQ(ClockText(absl::Seconds(3600 + 2 * 60 + 9)), "1:02:09");
  EXPECT_EQ(ClockText(-absl::Seconds(1)), "0:00");
}

}  // namespace
}  // namespace lwq::client
