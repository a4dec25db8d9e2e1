#include "client/work_text.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace lwq::client {
namespace {

v1::WorkForecast Forecast() {
  v1::WorkForecast work;
  work.set_operations(3.5e12);
  v1::PhaseWork* phase = work.add_phases();
  phase->set_phase(v1::CALIBRATE);
  phase->set_operations(1.5e12);
  phase->set_seconds(31);
  phase = work.add_phases();
  phase->set_phase(v1::SCORE);
  phase->set_operations(2e12);
  phase->set_seconds(130);
  return work;
}

TEST(WorkTextTest, SaysHowLongAndWhereItGoes) {
  v1::WorkForecast work = Forecast();
  work.set_seconds(161);
  EXPECT_EQ(ForecastText(work), "about 3 min: calibrate 31s, score 2m10s");
  EXPECT_EQ(OperationsText(work), "3.5e+12 multiplications: calibrate 1.5e+12, score 2e+12");
}

TEST(WorkTextTest, ClaimsNothingThatNobodyKnows) {
  EXPECT_EQ(ForecastText(Forecast()), "not known: no worker is there whose speed is known");
  EXPECT_EQ(ForecastText(v1::WorkForecast()), "");
}

TEST(WorkTextTest, NamesTasks) {
  EXPECT_EQ(TaskName("quantize", 0), "quantize layer 0");
  EXPECT_EQ(TaskName("score", -1), "score lm_head");
  EXPECT_EQ(TaskName("score", -3), "score embedding");
  EXPECT_EQ(TaskName("trial", -2), "trial");
  v1::RunningTask task;
  task.set_kind("trial");
  task.set_layer(-2);
  task.set_worker("w\x1b");
  task.set_seconds(3);
  EXPECT_EQ(RunningText(task), "trial on w\\x1b for 3.0s");
}

v1::RunningTask TaskThatWaits(const std::string& key, const std::string& what) {
  v1::RunningTask task;
  task.set_task(key);
  task.set_kind("quantize");
  task.set_layer(3);
  task.set_worker("w1");
  task.set_seconds(12);
  task.set_waits_for(what);
  return task;
}

TEST(WorkTextTest, SaysWhyATaskStandsStill) {
  EXPECT_EQ(RunningText(TaskThatWaits("a", "the server's storage is full: 5 bytes free")),
            "quantize layer 3 on w1 for 12s: the server's storage is full: 5 bytes free");
}

TEST(WorkTextTest, EachTaskThatBeginsToStandStillIsToldOnce) {
  Standing standing;
  v1::Progress progress;
  *progress.add_running() = TaskThatWaits("a", "full, 5 free");
  *progress.add_running() = TaskThatWaits("b", "");
  ASSERT_EQ(standing.Take(progress).size(), 1u);
  progress.mutable_running(0)->set_waits_for("full, 4 free");
  EXPECT_TRUE(standing.Take(progress).empty());
  progress.mutable_running(0)->clear_waits_for();
  EXPECT_TRUE(standing.Take(progress).empty());
  progress.mutable_running(0)->set_waits_for("full again");
  EXPECT_EQ(standing.Take(progress).size(), 1u);
}

TEST(WorkTextTest, AWorkerThatIsSilentIsShownWithItsSilence) {
  v1::Worker worker;
  worker.set_state(v1::Worker::BUSY);
  EXPECT_EQ(WorkerStateText(worker), "BUSY");
  worker.set_state(v1::Worker::SILENT);
  worker.set_cordoned(true);
  worker.mutable_seen_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) - 3600);
  EXPECT_EQ(WorkerStateText(worker), "SILENT 1h00m, cordoned");
}

}  // namespace
}  // namespace lwq::client
