// What the server counts of a job that ended.
#include "server/service/server_metrics.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::EvaluationResult TextOf(const std::string& subject, double perplexity) {
  v1::EvaluationResult result;
  result.set_subject(subject);
  result.set_dataset("datasets/d");
  result.mutable_text()->set_token_perplexity(perplexity);
  return result;
}

v1::Job MeasuredJob() {
  v1::Job job;
  job.set_state(v1::Job::SUCCEEDED);
  job.mutable_plan()->set_budget_bytes(1000);
  job.mutable_plan()->set_plan_bytes(985);
  job.mutable_plan()->set_bits_per_weight(3.25);
  for (int i = 0; i < 4; ++i) job.add_trials();
  *job.add_evaluations() = TextOf("artifact", 11);  // before the source, as it may arrive
  job.mutable_evaluations(0)->mutable_text()->mutable_kl()->set_mean(0.03);
  *job.add_evaluations() = TextOf("source", 10);
  return job;
}

TEST(ServerMetricsTest, AJobThatSucceededShowsItsQuality) {
  ServerMetrics metrics;
  metrics.JobFinished(MeasuredJob(), 12);
  EXPECT_THAT(
      metrics.Expose(),
      AllOf(HasSubstr("lwq_jobs_finished_total{blame=\"none\",state=\"succeeded\"} 1"),
            HasSubstr("lwq_job_budget_used_ratio_sum 0.985"),
            HasSubstr("lwq_job_bits_per_weight_sum 3.25"), HasSubstr("lwq_job_kl_nats_sum 0.03"),
            HasSubstr("lwq_job_perplexity_ratio_sum 1.1"), HasSubstr("lwq_job_trials_total 4"),
            HasSubstr("process_resident_memory_bytes ")));
}

TEST(ServerMetricsTest, AJobThatFailedShowsItsBlameAndNoQuality) {
  ServerMetrics metrics;
  v1::Job job = MeasuredJob();
  job.set_state(v1::Job::FAILED);
  job.mutable_failure()->set_blame(v1::Failure::CAPACITY);
  metrics.JobFinished(job, 12);
  EXPECT_THAT(metrics.Expose(),
              AllOf(HasSubstr("lwq_jobs_finished_total{blame=\"capacity\",state=\"failed\"} 1"),
                    HasSubstr("lwq_job_kl_nats_count 0"),
                    Not(HasSubstr("lwq_jobs_finished_total{blame=\"none\",state=\"running\"}"))));
}

// Whoever makes tenants makes no series.
TEST(ServerMetricsTest, OnlyTenantsThatTheOperatorNamedHaveSeriesOfTheirOwn) {
  ServerMetrics metrics({{"acme", {}}, {kEverybody, {}}});
  std::map<std::string, TenantUse> use;
  use["acme"] = {.running_jobs = 1, .queued_jobs = 2, .ready_tasks = 3, .leased_tasks = 4};
  use["default"].stored_bytes = 5;
  for (int i = 0; i < 100; ++i) {
    use[absl::StrCat("t", i)] = {.queued_jobs = 1, .stored_bytes = 10};
  }
  metrics.SetTenants(use);
  const std::string text = metrics.Expose();
  for (const char* line : {"lwq_tenant_jobs{state=\"running\",tenant=\"acme\"} 1",
                           "lwq_tenant_jobs{state=\"queued\",tenant=\"acme\"} 2",
                           "lwq_tenant_tasks{state=\"ready\",tenant=\"acme\"} 3",
                           "lwq_tenant_tasks{state=\"leased\",tenant=\"acme\"} 4",
                           "lwq_tenant_stored_bytes{tenant=\"default\"} 5",
                           "lwq_tenant_stored_bytes{tenant=\"(other)\"} 1000",
                           "lwq_tenant_jobs{state=\"queued\",tenant=\"(other)\"} 100"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("t7")));
  EXPECT_THAT(text, Not(HasSubstr("\"*\"")));
  // What is gone is 0, and not what it was.
  metrics.SetTenants({});
  EXPECT_THAT(metrics.Expose(), HasSubstr("lwq_tenant_stored_bytes{tenant=\"(other)\"} 0"));
}

TEST(ServerMetricsTest, WhatTheCacheSparedIsCountedInSeconds) {
  ServerMetrics metrics;
  metrics.TaskEvent("quantize", v1::TaskEvent::CACHED, 7.5);
  EXPECT_THAT(metrics.Expose(),
              AllOf(HasSubstr("lwq_cache_saved_seconds_total{kind=\"quantize\"} 7.5"),
                    HasSubstr("lwq_task_duration_seconds_count{kind=\"quantize\"} 0")));
}

TEST(ServerMetricsTest, WhatCollectionDeletedIsCounted) {
  ServerMetrics metrics;
  v1::CollectGarbageResponse deleted;
  deleted.set_cache_entries(3);
  deleted.set_blobs(2);
  deleted.set_blob_bytes(500);
  metrics.Collected(deleted);
  metrics.Collected(deleted);
  EXPECT_THAT(metrics.Expose(), AllOf(HasSubstr("lwq_collected_total{what=\"result\"} 6"),
                                      HasSubstr("lwq_collected_total{what=\"blob\"} 4"),
                                      HasSubstr("lwq_collected_total{what=\"job\"} 0"),
                                      HasSubstr("lwq_collected_bytes_total 1000")));
}

}  // namespace
}  // namespace lwq::testing
