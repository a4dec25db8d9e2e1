// What a job would do, asked by RPC. Forecasts: work_estimate_test.cc.
#include "tests/server/service/server_fixture.h"

namespace lwq::testing {
namespace {

using PlanJobTest = ServerTest;

// As of the job itself: one that shares nothing is not told of results that it will not have.
TEST_F(PlanJobTest, OneThatSharesNothingHasNothingFromTheCache) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  ASSERT_OK(Watch(job.name()));
  v1::PlanJobRequest request;
  *request.mutable_spec() = JobRequest(5.0).job().spec().quantize();
  v1::PlanJobResponse planned;
  const auto plan = [&] {
    planned.Clear();
    return Call(*stubs_->jobs, &v1::JobService::Stub::PlanJob, request, &planned);
  };
  ASSERT_OK(plan());
  EXPECT_GT(planned.tasks_cached(), 0);
  request.mutable_spec()->set_no_cache(true);
  ASSERT_OK(plan());
  EXPECT_EQ(planned.tasks_cached(), 0);
  EXPECT_GT(planned.tasks_total(), 0);
}

}  // namespace
}  // namespace lwq::testing
