// Where the time of a task is said to have gone.
#include "worker/worker_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Each call takes two seconds.
class SlowBlobs : public BlobAccess {
 public:
  explicit SlowBlobs(SimulatedClock* clock) : clock_(clock) {}
  absl::StatusOr<std::string> Fetch(const v1::BlobRef&) override {
    clock_->Advance(absl::Seconds(2));
    return std::string("path");
  }
  absl::StatusOr<v1::BlobRef> Store(const std::string&, const std::string&) override {
    clock_->Advance(absl::Seconds(2));
    v1::BlobRef blob;
    blob.set_size_bytes(50);
    return blob;
  }
  std::string ScratchDirectory() const override { return "scratch"; }

 private:
  SimulatedClock* const clock_;
};

TEST(WorkerMetricsTest, TheTimeOfATaskIsFetchComputeAndUpload) {
  SimulatedClock clock;
  SlowBlobs slow(&clock);
  WorkerMetrics metrics("cpu", 1 << 20);
  MeasuredBlobs blobs(&slow, &metrics, &clock);
  v1::BlobRef blob;
  blob.set_size_bytes(30);
  v1::TaskSpec spec;
  spec.mutable_quantize();

  metrics.TaskStarted();
  EXPECT_THAT(metrics.Expose(), HasSubstr("lwq_worker_busy 1"));
  EXPECT_OK(blobs.Fetch(blob));
  EXPECT_OK(blobs.Fetch(blob));
  EXPECT_OK(blobs.Store("path", ""));
  metrics.TaskEnded(spec, "done", 10, 4096);
  EXPECT_THAT(metrics.Expose(),
              AllOf(HasSubstr("lwq_worker_busy 0"),
                    HasSubstr("lwq_worker_tasks_total{kind=\"quantize\",outcome=\"done\"} 1"),
                    HasSubstr("lwq_worker_stage_seconds_total{stage=\"fetch\"} 4"),
                    HasSubstr("lwq_worker_stage_seconds_total{stage=\"upload\"} 2"),
                    HasSubstr("lwq_worker_stage_seconds_total{stage=\"compute\"} 4"),
                    HasSubstr("lwq_worker_blob_bytes_total{stage=\"fetch\"} 60"),
                    HasSubstr("lwq_worker_blob_bytes_total{stage=\"upload\"} 50"),
                    HasSubstr("lwq_worker_memory_bytes{kind=\"ceiling\"} 1048576"),
                    HasSubstr("lwq_worker_memory_bytes{kind=\"peak\"} 4096"),
                    HasSubstr("lwq_worker_info{device=\"cpu\"")));
}

TEST(WorkerMetricsTest, TokensAreThoseOfTasksThatReadText) {
  WorkerMetrics metrics("cpu", 0);
  v1::TaskSpec calibrate, trial, quantize;
  calibrate.mutable_calibrate()->mutable_calibration()->set_num_tokens(1000);
  trial.mutable_trial()->mutable_held_out()->set_trial_tokens(300);
  trial.mutable_trial()->mutable_held_out()->set_judge_tokens(70);
  quantize.mutable_quantize();
  metrics.TaskEnded(calibrate, "done", 1, 0);
  metrics.TaskEnded(calibrate, "failed", 1, 0);
  metrics.TaskEnded(quantize, "done", 1, 0);
  metrics.TaskEnded(trial, "done", 1, 0);
  trial.mutable_trial()->set_judge(true);
  metrics.TaskEnded(trial, "done", 1, 0);
  EXPECT_THAT(metrics.Expose(), AllOf(HasSubstr("lwq_worker_tokens_total{kind=\"calibrate\"} 1000"),
                                      HasSubstr("lwq_worker_tokens_total{kind=\"trial\"} 370"),
                                      HasSubstr("lwq_worker_tokens_total{kind=\"evaluate\"} 0")));
}

}  // namespace
}  // namespace lwq::testing
