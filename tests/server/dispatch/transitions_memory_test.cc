// What tasks are told of memory, and what jobs tell of it.
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

TEST(Transitions, AJobsMemoryCeilingGoesWithItsLeasesAndItsPhasesTellThePeaks) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  v1::JobSpec spec = s.Spec("rtn", "zd", 1000);
  spec.mutable_quantize()->set_memory_bytes(12345);
  ASSERT_OK(s.Submit("jobs/a", spec));
  const v1::Lease lease = s.Lease("w").at(0);
  EXPECT_EQ(lease.memory_bytes(), 12345);
  ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  const v1::Progress& progress = s.records["jobs/a"].job().progress();
  ASSERT_GT(progress.phases_size(), 3);
  for (const v1::PhaseProgress& phase : progress.phases()) {
    if (phase.phase() == v1::PLAN || phase.tasks_done() == 0) continue;
    EXPECT_EQ(phase.peak_bytes(), Scenario::kPeakBytes) << v1::Phase_Name(phase.phase());
    EXPECT_EQ(phase.forecast_bytes(), Scenario::kForecastBytes) << v1::Phase_Name(phase.phase());
  }
}

TEST(Transitions, ASharedTaskKeepsToTheLeastCeilingOfThoseThatWantIt) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  const auto spec = [&s](int64_t ceiling) {
    v1::JobSpec spec = s.Spec("rtn", "zd", 1000);
    spec.mutable_quantize()->set_memory_bytes(ceiling);
    return spec;
  };
  ASSERT_OK(s.Submit("jobs/a", spec(0)));
  ASSERT_OK(s.Submit("jobs/b", spec(34567)));
  ASSERT_OK(s.Submit("jobs/c", spec(12345)));
  // What the next task that the three share is to keep to.
  const auto leased = [&s] {
    v1::Lease lease = s.Lease("w").at(0);
    for (; lease.spec().has_preflight(); lease = s.Lease("w").at(0)) {
      EXPECT_OK(s.Complete("w", lease));  // each job's own
    }
    EXPECT_OK(s.Release("w", lease));
    return lease.memory_bytes();
  };
  EXPECT_EQ(leased(), 12345);
  const auto cancel = [&s](const std::string& job) {
    EXPECT_OK(s.Run([&](Draft& draft) { return CancelJob(draft, job); }));
  };
  cancel("jobs/c");
  EXPECT_EQ(leased(), 34567) << "whoever is gone asks for nothing";
  cancel("jobs/b");
  EXPECT_EQ(leased(), 0);
}

}  // namespace
}  // namespace lwq
