// Tenants: how they share workers, what waits for a quota, and that none waits for ever.
#include <cmath>

#include "gmock/gmock.h"
#include "server/dispatch/pick_tasks.h"
#include "server/dispatch/task_wait.h"
#include "server/dispatch/tenant_options.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

DispatchOptions WithTenants(const TenantSettings& tenants) {
  DispatchOptions options;
  options.tenants = tenants;
  return options;
}

// Jobs that share nothing, so that each has tasks of its own to hand out.
void SubmitMany(Scenario& s, const std::string& tenant, int count) {
  s.model.set_tenant(tenant);
  for (int i = 0; i < count; ++i) {
    v1::JobSpec spec = s.Spec("rtn", "zd", 1000);
    spec.mutable_quantize()->set_no_cache(true);
    ASSERT_OK(s.Submit(absl::StrCat("jobs/", tenant, "-", 100 + i), spec));
  }
}

std::string TenantOfLease(const Scenario& s, const v1::Lease& lease) {
  return TenantOf(s.state().tasks().at(lease.task()));
}

// One task after the other, each for as long as its tenant's take.
std::map<std::string, int> Serve(Scenario& s, int count,
                                 const std::map<std::string, int>& seconds = {}) {
  std::map<std::string, int> served;
  for (int i = 0; i < count; ++i) {
    const std::vector<v1::Lease> leases = s.Lease("w");
    if (leases.empty()) break;
    const std::string tenant = TenantOfLease(s, leases[0]);
    ++served[tenant];
    const auto found = seconds.find(tenant);
    s.now_us += 1'000'000 * (found == seconds.end() ? 1 : found->second);
    EXPECT_OK(s.Complete("w", leases[0]));
  }
  return served;
}

// B is held by the event that ends A, which had the only place.
TEST(Tenants, AJobThatTakesOverFromACancelledOneIsNotHeldForEver) {
  Scenario s(3, WithTenants({{"default", {.max_running_jobs = 1}}}));
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

// A worker's word of its speed decides what tasks are expected to take; released at once, they took
// nothing.
TEST(Tenants, AWorkerThatSaysItIsSlowMovesNobodysShareFar) {
  for (const double rate : {1.0, 1e-308}) {
    Scenario s(3, WithTenants({{"a", {}}, {"b", {}}}));
    s.operations_per_second = rate;
    s.Register("w", "incarnation-1");
    SubmitMany(s, "a", 4);
    const std::vector<v1::Lease> leases = s.Lease("w", 2);
    ASSERT_EQ(leases.size(), 2u);
    EXPECT_GT(s.state().tasks().at(leases[0].task()).operations(), 0);
    for (const v1::Lease& lease : leases) ASSERT_OK(s.Release("w", lease));
    SubmitMany(s, "b", 4);
    std::map<std::string, int> served = Serve(s, 12);
    EXPECT_GE(served["b"], 3) << rate;
  }
}

TEST(Tenants, GetOfTheWorkersWhatTheirWeightsSay) {
  Scenario s(3, WithTenants({{"a", {.weight = 3}}, {"b", {.weight = 1}}}));
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 20);
  SubmitMany(s, "b", 20);
  std::map<std::string, int> served = Serve(s, 40);
  EXPECT_NEAR(served["a"], 30, 1);
  EXPECT_NEAR(served["b"], 10, 1);
}

TEST(Tenants, ShareTheTimeAndNotTheNumberOfTasks) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 20);
  SubmitMany(s, "b", 20);
  std::map<std::string, int> served = Serve(s, 33, {{"a", 10}, {"b", 1}});
  // Neither is ahead by more than a task of each.
  EXPECT_LE(std::abs(10 * served["a"] - served["b"]), 11);
  EXPECT_DOUBLE_EQ(s.state().shares().SecondsOf("a"), 10 * served["a"]);
}

TEST(Tenants, WhoComesLaterBeginsBesideTheOthersAndNotBeforeThem) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 30);
  Serve(s, 20);
  SubmitMany(s, "b", 20);
  std::map<std::string, int> served = Serve(s, 10);
  EXPECT_NEAR(served["a"], 5, 1);
  EXPECT_NEAR(served["b"], 5, 1);
}

// A queue of one tenant as long as you like makes the others wait for no more than its turn.
TEST(Tenants, ASmallOneIsServedInItsTurnBesideALongQueue) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 200);
  Serve(s, 5);
  SubmitMany(s, "b", 1);
  EXPECT_EQ(Serve(s, 2)["b"], 1);
}

TEST(Tenants, SeveralLeasesOfOneCallAreSharedToo) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 10);
  SubmitMany(s, "b", 10);
  std::map<std::string, int> served;
  for (const v1::Lease& lease : s.Lease("w", 8)) ++served[TenantOfLease(s, lease)];
  EXPECT_EQ(served["a"], 4);
  EXPECT_EQ(served["b"], 4);
}

TEST(Tenants, LeasesOfOneCommitAreSharedToo) {
  Scenario s;
  for (const char* worker : {"w", "x", "y", "z"}) s.Register(worker, "incarnation-1");
  SubmitMany(s, "a", 10);
  SubmitMany(s, "b", 10);
  std::map<std::string, int> served;
  ASSERT_OK(s.Run([&](Draft& draft) -> absl::Status {
    for (const char* worker : {"w", "x", "y", "z"}) {
      v1::LeaseTasksRequest request;
      request.set_worker_id(worker);
      request.set_incarnation("incarnation-1");
      LWQ_ASSIGN_OR_RETURN(const std::vector<v1::Lease> leases, LeaseTasks(draft, request));
      for (const v1::Lease& lease : leases) ++served[TenantOfLease(s, lease)];
    }
    return absl::OkStatus();
  }));
  EXPECT_EQ(served["a"], 2);
  EXPECT_EQ(served["b"], 2);
}

TEST(Tenants, ALowPriorityWaitsAndNotForEver) {
  Scenario s;
  s.Register("w", "incarnation-1");
  s.priority = v1::Job::LOW;
  SubmitMany(s, "low", 1);
  ++s.now_us;
  s.priority = v1::Job::HIGH;
  for (int i = 0; i < 20; ++i) {
    v1::JobSpec spec = s.Spec("rtn", "zd", 1000);
    spec.mutable_quantize()->set_no_cache(true);
    ASSERT_OK(s.Submit(absl::StrCat("jobs/high-", 100 + i), spec));
  }
  const auto low_is_served = [&](int tries) {
    for (int i = 0; i < tries; ++i) {
      const v1::Lease lease = s.Lease("w").at(0);
      const bool is_low = lease.jobs(0) == "jobs/low-100";
      EXPECT_OK(s.Complete("w", lease));
      if (is_low) return true;
    }
    return false;
  };
  EXPECT_FALSE(low_is_served(2 * kTurnOfLongestWait));
  s.now_us += kLongWaitUs;
  EXPECT_TRUE(low_is_served(kTurnOfLongestWait));
}

TEST(Tenants, JobsBeyondTheQuotaAreHeldAndBeginAsOthersEnd) {
  Scenario s(3, WithTenants({{"a", {.max_running_jobs = 1}}}));
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 3);
  EXPECT_THAT(s.records["jobs/a-101"].job().queue_detail(),
              HasSubstr("held: tenant a may have 1 job at work"));
  EXPECT_EQ(s.state().CountsOf("a").at_work, 1);
  EXPECT_EQ(s.state().CountsOf("a").held, 2);
  // Another tenant's begin at once.
  SubmitMany(s, "b", 1);
  int64_t most = 0;
  for (int i = 0; i < 500; ++i) {
    const std::vector<v1::Lease> leases = s.Lease("w", 8);
    if (leases.empty()) break;
    most = std::max<int64_t>(most, s.state().CountsOf("a").at_work);
    for (const v1::Lease& lease : leases) ASSERT_OK(s.Complete("w", lease));
  }
  EXPECT_EQ(most, 1);
  for (const char* job : {"jobs/a-100", "jobs/a-101", "jobs/a-102", "jobs/b-100"}) {
    EXPECT_EQ(s.StateOf(job), v1::Job::SUCCEEDED) << job;
  }
  EXPECT_EQ(s.state().CountsOf("a").held, 0);
  EXPECT_EQ(s.state().CountsOf("a").at_work, 0);
}

// Tasks that jobs share run for those at work; the held one hears of them and begins by its quota.
TEST(Tenants, AHeldJobMayShareTasksWithOneAtWork) {
  Scenario s(3, WithTenants({{"default", {.max_running_jobs = 1}}}));
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("rtn", "kl", 1000)));
  ASSERT_TRUE(s.records["jobs/b"].held());
  const v1::Lease lease = s.Lease("w").at(0);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::RUNNING);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::QUEUED);
  ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

// A task that was ready for a job at work is left to one that is held: it waits with that one.
TEST(Tenants, OfAHeldJobAloneNothingIsHandedOut) {
  Scenario s(3, WithTenants({{kEverybody, {.max_running_jobs = 1}}}));
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("rtn", "kl", 1000)));
  v1::JobSpec own = s.Spec("rtn", "kl", 1000);
  own.mutable_quantize()->set_no_cache(true);
  s.priority = v1::Job::HIGH;
  ASSERT_OK(s.Submit("jobs/c", own));
  ASSERT_OK(s.Run([&](Draft& draft) { return CancelJob(draft, "jobs/a"); }));
  ASSERT_TRUE(s.records["jobs/b"].held());
  ASSERT_FALSE(s.records["jobs/c"].held());
  int left = 0;
  for (const std::string& key : s.records["jobs/b"].tasks()) {
    if (s.state().tasks().at(key).state() == v1::TaskRecord::READY) ++left;
  }
  ASSERT_GT(left, 0);
  const std::vector<v1::Lease> leases = s.Lease("w", 20);
  ASSERT_FALSE(leases.empty());
  for (const v1::Lease& lease : leases) {
    EXPECT_EQ(s.state().tasks().at(lease.task()).only_job(), "jobs/c");
  }
  for (const v1::Lease& lease : leases) ASSERT_OK(s.Complete("w", lease));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

TEST(Tenants, AHeldJobIsAdmittedByPriorityAndMayBeCancelled) {
  Scenario s(3, WithTenants({{kEverybody, {.max_running_jobs = 1}}}));
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 4);
  v1::UpdateJobRequest update;
  update.set_name("jobs/a-103");
  update.set_priority(v1::Job::HIGH);
  ASSERT_OK(s.Run([&](Draft& draft) { return UpdateJob(draft, update); }));
  ASSERT_OK(s.Run([&](Draft& draft) { return CancelJob(draft, "jobs/a-101"); }));
  EXPECT_EQ(s.StateOf("jobs/a-101"), v1::Job::CANCELLED);
  ASSERT_OK(s.Run([&](Draft& draft) { return CancelJob(draft, "jobs/a-100"); }));
  EXPECT_FALSE(s.records["jobs/a-103"].held());
  EXPECT_TRUE(s.records["jobs/a-102"].held());
  EXPECT_GT(s.woken, 0);
}

TEST(Tenants, AJobSaysThatItWaitsForItsTenantsShare) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 5);
  Serve(s, 4);
  SubmitMany(s, "b", 5);
  const v1::Lease lease = s.Lease("w").at(0);
  const auto why = [&](const std::string& job) {
    return WhyJobWaits(Draft(s.state(), s.Now()), s.state().jobs().at(job));
  };
  ASSERT_EQ(TenantOfLease(s, lease), "b");
  s.now_us += 100'000'000;
  ASSERT_OK(s.Complete("w", lease));
  s.Lease("w");
  // The one that had the worker for long, and not the other; no name of another tenant in either.
  EXPECT_THAT(why("jobs/b-104"), AllOf(HasSubstr("1 is busy; tenant b has had its share"),
                                       Not(HasSubstr("tenant a"))));
  EXPECT_THAT(why("jobs/a-104"), AllOf(HasSubstr("1 is busy"), Not(HasSubstr("share"))));
}

TEST(Tenants, ShareNoResults) {
  Scenario s;
  s.Register("w", "incarnation-1");
  for (const char* tenant : {"a", "b"}) {
    s.model.set_tenant(tenant);
    ASSERT_OK(s.Submit(absl::StrCat("jobs/", tenant), s.Spec("rtn", "kl", 1000)));
    s.Work("w");
    ASSERT_EQ(s.StateOf(absl::StrCat("jobs/", tenant)), v1::Job::SUCCEEDED);
  }
  EXPECT_THAT(s.records["jobs/b"].cached(), IsEmpty());
  s.model.set_tenant("a");
  ASSERT_OK(s.Submit("jobs/a2", s.Spec("rtn", "kl", 1000)));
  EXPECT_GT(s.records["jobs/a2"].job().progress().tasks_cached(), 0) << "its own it has";
}

TEST(Tenants, OfAJobThatSharesNothingResultsNameIt) {
  Scenario s;
  s.Register("w", "incarnation-1");
  SubmitMany(s, "a", 1);
  for (const auto& [key, task] : s.state().tasks()) EXPECT_EQ(task.only_job(), "jobs/a-100");
  ASSERT_OK(s.Submit("jobs/shares", s.Spec("rtn", "zd", 1000)));
  for (const std::string& key : s.records["jobs/shares"].tasks()) {
    EXPECT_EQ(s.state().tasks().at(key).only_job(), "");
  }
}

TEST(TenantOptions, AreReadFromText) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto all,
                           ParseTenantOptions("acme:weight=2.5:running=8:queued=100:bytes=1KiB"));
  EXPECT_EQ(all.first, "acme");
  EXPECT_EQ(all.second.weight, 2.5);
  EXPECT_EQ(all.second.max_running_jobs, 8);
  EXPECT_EQ(all.second.max_queued_jobs, 100);
  EXPECT_EQ(all.second.max_bytes, 1024);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto others, ParseTenantOptions("*:running=1"));
  const TenantSettings settings = {all, others};
  EXPECT_EQ(OptionsOf(settings, "acme").max_running_jobs, 8);
  EXPECT_EQ(OptionsOf(settings, "b").max_running_jobs, 1);
  EXPECT_EQ(OptionsOf({}, "b").max_running_jobs, 0);
  for (const char* wrong : {"", "Acme", "acme:weight=0", "acme:weight=x", "acme:running=-1",
                            "acme:bytes=x", "acme:speed=1", "acme:running"}) {
    EXPECT_FALSE(ParseTenantOptions(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace lwq::testing
