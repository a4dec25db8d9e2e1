#include "client/progress.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

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

TEST(ProgressViewTest, OneBarAPhaseAndALineForAll) {
  ProgressView view;
  v1::JobEvent event;
  v1::Job* job = event.mutable_snapshot();
  job->set_state(v1::Job::RUNNING);
  v1::Progress* progress = job->mutable_progress();
  progress->set_fraction(0.5);
  progress->set_tasks_total(60);
  progress->set_tasks_done(24);
  progress->set_current("quantize layer 16/32");
  AddPhase(progress, v1::CALIBRATE, 8, 8, 0, 112);
  AddPhase(progress, v1::QUANTIZE, 16, 32, 3, 151);
  AddPhase(progress, v1::EVALUATE, 0, 12, 0, 0);
  view.Apply(event);
  EXPECT_THAT(view.Lines(100), ElementsAre("calibrate  [####################]   8/8      1m52s",
                                           "quantize   [##########..........]  16/32     2m31s  "
                                           "cached 3",
                                           "evaluate   [....................]   0/12 ",
                                           " 50%  RUNNING  24/60 tasks  quantize layer 16/32"));
}

TEST(ProgressViewTest, ABarNeverGoesBack) {
  ProgressView view;
  view.Apply(ProgressEvent(0.6, 20));
  view.Apply(ProgressEvent(0.4, 12));
  const std::vector<std::string> lines = view.Lines(100);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[0], HasSubstr(" 20/32"));
  EXPECT_THAT(lines[1], StartsWith(" 60%"));
}

TEST(ProgressViewTest, ANewGenerationStartsAgain) {
  ProgressView view;
  view.Apply(ProgressEvent(0.6, 20));
  v1::JobEvent event;
  event.mutable_state()->set_to(v1::Job::QUEUED);
  event.mutable_state()->mutable_job()->set_generation(1);
  view.Apply(event);
  EXPECT_THAT(view.Lines(100), ElementsAre("  0%  QUEUED"));
}

TEST(ProgressViewTest, LinesFitTheWidthAndEscapeControls) {
  ProgressView view;
  v1::JobEvent event;
  event.mutable_snapshot()->set_state(v1::Job::QUEUED);
  event.mutable_snapshot()->set_queue_detail("\x1b[31m" + std::string(200, 'x'));
  view.Apply(event);
  for (const std::string& line : view.Lines(40)) {
    EXPECT_LE(line.size(), 40u);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
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

}  // namespace
}  // namespace lwq::client
