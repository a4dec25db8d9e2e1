// A plan takes its time, and what it is made of may be another meanwhile.
#include "gmock/gmock.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

// Changes the job's record in the state.
template <typename Change>
void Edit(Scenario& s, Change change) {
  ASSERT_OK(s.Run([&](Draft& draft) {
    change(*draft.EditJob("jobs/a"));
    return absl::OkStatus();
  }));
}

TEST(PlanningTest, APlanFromBeforeARebuildChangesNothing) {
  Scenario s(3);
  s.plan_later = true;
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("w");
  const v1::JobRecord begun = s.records["jobs/a"];
  ASSERT_EQ(begun.plan_state(), v1::JobRecord::RUNNING);
  ASSERT_GT(begun.plan_tasks_size(), 0);
  // `Plan` goes by what the scenario remembers of the job.
  const auto plan_as_begun = [&] {
    s.records["jobs/a"] = begun;
    s.Plan("jobs/a");
    return s.state().jobs().at("jobs/a").plan_state();
  };

  Edit(s, [](v1::JobRecord& job) { job.mutable_engine()->set_numerics_class("another"); });
  EXPECT_EQ(plan_as_begun(), v1::JobRecord::RUNNING) << "of another class of workers";
  Edit(s, [&](v1::JobRecord& job) {
    *job.mutable_engine() = begun.engine();
    job.add_plan_tasks("another");
  });
  EXPECT_EQ(plan_as_begun(), v1::JobRecord::RUNNING) << "of other tasks";
  Edit(s, [&](v1::JobRecord& job) { *job.mutable_plan_tasks() = begun.plan_tasks(); });
  EXPECT_EQ(plan_as_begun(), v1::JobRecord::PLANNED);
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

}  // namespace
}  // namespace lwq
