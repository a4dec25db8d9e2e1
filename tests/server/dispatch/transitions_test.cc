// Scenarios of the state machine. Each test's name is the rule that it holds.
#include <random>
#include <set>

#include "base/reasons.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Count;
using ::lwq::testing::FailsWith;
using ::lwq::testing::Scenario;
using ::testing::_;

constexpr int64_t kSecond = 1'000'000;

TEST(Transitions, AJobThatMeasuresRunsEveryKindOnceALayerAndEndsWithAnArtifact) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "preflight"), 1);
  EXPECT_EQ(Count(kinds, "calibrate"), 1);
  EXPECT_EQ(Count(kinds, "quantize"), 3);
  EXPECT_EQ(Count(kinds, "score"), 3);
  EXPECT_EQ(Count(kinds, "assemble"), 1);
  EXPECT_EQ(Count(kinds, "verify"), 1);
  EXPECT_EQ(Count(kinds, "evaluate"), 2);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  ASSERT_EQ(s.artifacts.size(), 1u);
  EXPECT_EQ(s.records["jobs/a"].job().artifact(), s.artifacts[0].name());
  EXPECT_EQ(s.records["jobs/a"].job().evaluations_size(), 2);
  EXPECT_EQ(s.records["jobs/a"].job().layers_size(), 3);
  EXPECT_TRUE(s.state().tasks().empty());
  EXPECT_EQ(s.records["jobs/a"].job().progress().fraction(), 1.0);
}

TEST(Transitions, ARankingJobQuantizesOnlyThePlannedWidths) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "calibrate"), 0);
  EXPECT_EQ(Count(kinds, "quantize"), 3);
  EXPECT_LT(std::find(kinds.begin(), kinds.end(), "score"),
            std::find(kinds.begin(), kinds.end(), "quantize"));
  for (const auto& [key, output] : s.cache) {
    if (output.has_quantize()) {
      EXPECT_EQ(output.blobs_size(), 1);
    }
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(Transitions, PlansAreMeasuredRoundByRoundBeforeOneIsChosen) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  s.trial_bits["jobs/a"] = {2, 3};
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "trial"), 2);
  EXPECT_EQ(Count(kinds, "quantize"), 3) << "the scorer has made all widths";
  EXPECT_EQ(Count(kinds, "calibrate"), 1);
  EXPECT_LT(std::find(kinds.begin(), kinds.end(), "trial"),
            std::find(kinds.begin(), kinds.end(), "assemble"));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  const v1::Job& job = s.records["jobs/a"].job();
  EXPECT_EQ(job.trials_size(), 2);
  for (const v1::PhaseProgress& phase : job.progress().phases()) {
    if (phase.phase() != v1::PLAN) continue;
    EXPECT_EQ(phase.tasks_total(), 3) << "two trials, and the choice";
    EXPECT_EQ(phase.tasks_done(), 3);
  }
  // The same again is known.
  s.trial_bits["jobs/b"] = {2, 3};
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  EXPECT_EQ(Count(s.Work("w"), "trial"), 0);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

TEST(Transitions, TrialsOfARankingJobQuantizeTheWidthsThatTheyNeed) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  s.trial_bits["jobs/a"] = {2, 3};
  s.plan_bits["jobs/a"] = 3;
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "calibrate"), 1) << "the source's predictions";
  EXPECT_EQ(Count(kinds, "quantize"), 6) << "two widths of three layers, the choice among them";
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(Transitions, AJobCancelledWhilePlansAreMeasuredEnds) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  s.trial_bits["jobs/a"] = {2};
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  std::vector<v1::Lease> leases = s.Lease("w");
  while (!leases.at(0).spec().has_trial()) {
    ASSERT_OK(s.Complete("w", leases.at(0)));
    leases = s.Lease("w");
  }
  ASSERT_OK(s.Run([](Draft& draft) { return CancelJob(draft, "jobs/a"); }));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLING);
  ASSERT_OK(s.Complete("w", leases.at(0)));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  EXPECT_FALSE(s.records["jobs/a"].job().has_plan());
}

TEST(Transitions, ASecondBudgetComputesOnlyNewWidths) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  s.plan_bits["jobs/b"] = 3;
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("w");
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "quantize"), 0);
  EXPECT_EQ(Count(kinds, "score"), 0);
  EXPECT_EQ(Count(kinds, "calibrate"), 0);
  EXPECT_EQ(Count(kinds, "evaluate"), 1) << "the source's evaluation is shared";
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
  EXPECT_GE(s.records["jobs/b"].job().progress().tasks_cached(), 3 + 3 + 1);
}

TEST(Transitions, AnotherScorerSharesTheQuantizedLayers) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("w");
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "zd", 1000)));
  EXPECT_EQ(Count(s.Work("w"), "quantize"), 0);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

TEST(Transitions, IdenticalWorkOfTwoJobsIsOneExecution) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  const std::vector<std::string> kinds = s.Work("w");
  EXPECT_EQ(Count(kinds, "quantize"), 3);
  EXPECT_EQ(Count(kinds, "calibrate"), 1);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

TEST(Transitions, SupersededIncarnationRequeuesAtOnce) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease old = s.Lease("w").at(0);
  s.Register("w", "incarnation-2");
  std::vector<v1::Lease> again = s.Lease("w", 8);
  ASSERT_TRUE(std::any_of(again.begin(), again.end(),
                          [&](const v1::Lease& l) { return l.task() == old.task(); }));
  s.incarnations["w"] = "incarnation-1";
  EXPECT_THAT(s.Complete("w", old), FailsWith("LEASE_LOST", _));
}

TEST(Transitions, AStaleEpochIsRefused) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  v1::Lease lease = s.Lease("w").at(0);
  v1::Lease stale = lease;
  stale.set_epoch(lease.epoch() - 1);
  EXPECT_THAT(s.Complete("w", stale), FailsWith("LEASE_LOST", _));
  EXPECT_THAT(s.Fail("w", stale, "INTERNAL"), FailsWith("LEASE_LOST", _));
  EXPECT_OK(s.Complete("w", lease));
}

// Its answer was lost, so its worker says it again; meanwhile the same process has the task anew.
TEST(Transitions, AReleaseThatComesTwiceLeavesTheNextLeaseAsItIs) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease first = s.Lease("w").at(0);
  ASSERT_OK(s.Release("w", first));
  const v1::Lease second = s.Lease("w").at(0);
  ASSERT_EQ(second.task(), first.task());
  ASSERT_OK(s.Release("w", first));
  EXPECT_EQ(s.Beat("w", second).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  EXPECT_OK(s.Complete("w", second));
}

TEST(Transitions, EpochsRiseAcrossARetryOfTheJob) {
  Scenario s;
  s.Register("w", "incarnation-1");
  const v1::JobSpec spec = s.Spec("rtn", "zd", 1000);
  ASSERT_OK(s.Submit("jobs/a", spec));
  const v1::Lease before = s.Lease("w").at(0);
  ASSERT_OK(s.Run([](Draft& d) { return CancelJob(d, "jobs/a"); }));
  ASSERT_OK(s.Fail("w", before, "CANCELLED"));
  ASSERT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  ASSERT_OK(s.Run([&](Draft& d) {
    return RetryJob(d, s.records["jobs/a"], BuildFirstStage(s.InputOf("jobs/a", spec)), s.cache);
  }));
  EXPECT_GT(s.Lease("w").at(0).epoch(), before.epoch());
}

TEST(Transitions, ACompletionSentAgainIsOkAndCountsOnce) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  ASSERT_OK(s.Complete("w", lease, "same"));
  const size_t events = s.events["jobs/a"].size();
  EXPECT_OK(s.Complete("w", lease, "same"));
  EXPECT_EQ(s.events["jobs/a"].size(), events);
  EXPECT_THAT(s.Complete("w", lease, "another"), FailsWith("LEASE_LOST", _));
}

TEST(Transitions, ALeaseIsLostAfterItsTimeAndNotBefore) {
  Scenario s;
  s.Register("w", "incarnation-1");
  s.Register("v", "incarnation-v");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  s.now_us += 29 * kSecond;
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  s.now_us += 29 * kSecond;
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::CONTINUE);
  s.now_us += 31 * kSecond;
  s.Reap();
  EXPECT_EQ(s.Beat("w", lease).directives(0).directive(), v1::LeaseDirective::LEASE_LOST);
  EXPECT_THAT(s.Complete("w", lease), FailsWith("LEASE_LOST", _));
  s.Work("v");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(Transitions, ATaskThatStandsStillIsTakenBackThoughItsWorkerBeats) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  for (int i = 0; i < 61; ++i) {
    s.now_us += 10 * kSecond;
    s.Reap();
    // A beat whose progress does not rise renews the lease, but not for ever.
    DispatchState& state = const_cast<DispatchState&>(s.state());
    if (auto* live = state.MutableLease(lease.task())) live->expires_us = s.now_us + 30 * kSecond;
  }
  EXPECT_THAT(s.Complete("w", lease), FailsWith("LEASE_LOST", _));
}

TEST(Transitions, PoisonIsNotHandedOutAfterThreeWorkers) {
  Scenario s;
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  for (const char* worker : {"u", "v", "w"}) {
    s.Register(worker, absl::StrCat("incarnation-", worker));
    ASSERT_EQ(s.StateOf("jobs/a") == v1::Job::FAILED, false);
    s.Lease(worker, 8);
    s.now_us += 31 * kSecond;
    s.Reap();
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
  const v1::Failure failure = s.records["jobs/a"].job().failure();
  EXPECT_EQ(failure.reason(), "CRASH_LOOP");
  EXPECT_EQ(failure.code(), static_cast<int>(FindReason("CRASH_LOOP")->code));
}

TEST(Transitions, RetryKeepsFinishedTasks) {
  Scenario s(3);
  s.Register("w", "incarnation-1");
  const v1::JobSpec spec = s.Spec("gptq", "kl", 1000);
  ASSERT_OK(s.Submit("jobs/a", spec));
  std::set<std::string> done;
  while (s.StateOf("jobs/a") != v1::Job::FAILED) {
    const v1::Lease lease = s.Lease("w").at(0);
    if (lease.spec().has_assemble()) {
      ASSERT_OK(s.Fail("w", lease, "NON_FINITE_WEIGHTS"));
    } else {
      ASSERT_OK(s.Complete("w", lease));
      done.insert(lease.task());
    }
  }
  EXPECT_EQ(s.records["jobs/a"].job().failure().blame(), v1::Failure::MODEL);
  ASSERT_OK(s.Run([&](Draft& d) {
    return RetryJob(d, s.records["jobs/a"], BuildFirstStage(s.InputOf("jobs/a", spec)), s.cache);
  }));
  for (const v1::Lease& lease : s.Lease("w", 8)) {
    EXPECT_EQ(done.count(lease.task()), 0u) << KindOf(lease.spec());
    ASSERT_OK(s.Complete("w", lease));
  }
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  EXPECT_EQ(s.records["jobs/a"].job().generation(), 1);
}

TEST(Transitions, ATransientFailureRunsAgainAfterADelayAndABugOnce) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  v1::Lease lease = s.Lease("w").at(0);
  ASSERT_TRUE(lease.spec().has_evaluate() || lease.spec().has_preflight());
  ASSERT_OK(s.Fail("w", lease, "STORE_UNAVAILABLE"));
  auto leased = [&](const std::string& task) {
    std::vector<v1::Lease> now = s.Lease("w", 8);
    for (const v1::Lease& l : now) {
      if (l.task() == task) {
        lease = l;
        return true;
      }
    }
    return false;
  };
  EXPECT_FALSE(leased(lease.task()));
  s.now_us += 2 * kSecond;
  ASSERT_TRUE(leased(lease.task()));
  ASSERT_OK(s.Fail("w", lease, "INTERNAL"));
  ASSERT_TRUE(leased(lease.task()));
  ASSERT_OK(s.Fail("w", lease, "INTERNAL"));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
}

TEST(Transitions, AJobWithoutCacheSharesNothing) {
  Scenario s(2);
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.Work("w");
  v1::JobSpec spec = s.Spec("gptq", "kl", 1000);
  spec.mutable_quantize()->set_no_cache(true);
  ASSERT_OK(s.Submit("jobs/b", spec));
  EXPECT_EQ(Count(s.Work("w"), "quantize"), 2);
}

// It meets nothing of an earlier job of its name, and all of its own when it is retried.
TEST(Transitions, AJobWithoutCacheGoesOnWithItsOwnResults) {
  Scenario s(2);
  s.Register("w", "incarnation-1");
  v1::JobSpec spec = s.Spec("gptq", "kl", 1000);
  spec.mutable_quantize()->set_no_cache(true);
  ASSERT_OK(s.Submit("jobs/a", spec));
  s.Work("w", 1);
  s.Work("w", 1);
  ASSERT_OK(s.Run([](Draft& draft) { return CancelJob(draft, "jobs/a"); }));
  ASSERT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  ASSERT_OK(s.Run([&](Draft& draft) {
    return RetryJob(draft, s.records["jobs/a"], BuildFirstStage(s.InputOf("jobs/a", spec)),
                    s.cache);
  }));
  EXPECT_EQ(s.records["jobs/a"].salt(), "jobs/a/salt");
  EXPECT_EQ(s.records["jobs/a"].job().progress().tasks_cached(), 2);
  GraphInput next = s.InputOf("jobs/a", spec);
  next.salt = "jobs/a/another";
  for (const TaskNode& task : BuildFirstStage(next).tasks) {
    EXPECT_EQ(s.cache.count(task.key()), 0) << task.kind();
  }
}

TEST(Transitions, AfterARestartLiveLeasesGoOn) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  DispatchState again(Scenario::Options());
  s.now_us += 3600 * kSecond;  // the server was away for an hour
  for (const auto& [name, job] : s.state().jobs()) again.Load(job);
  for (const auto& [key, task] : s.state().tasks()) again.Load(task, s.Now());
  for (const auto& [id, worker] : s.state().workers()) again.Load(worker, s.Now());
  Draft draft(again, s.Now());
  ReapLeases(draft);
  EXPECT_TRUE(draft.changes.empty());
  v1::CompleteTaskRequest request;
  request.set_worker_id("w");
  request.set_incarnation("incarnation-1");
  request.set_task(lease.task());
  request.set_epoch(lease.epoch());
  *request.mutable_output() = Scenario::OutputOf(lease);
  EXPECT_OK(CompleteTask(draft, request));
}

// P1-P4 under random events: acknowledged jobs end, an artifact is made once, sequence numbers have
// no gaps, a completion counts once.
TEST(Transitions, RandomEventsKeepThePromises) {
  for (int seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    Scenario s(2);
    std::vector<std::pair<std::string, v1::Lease>> held;
    int jobs = 0;
    const std::vector<std::string> workers = {"u", "v"};
    int incarnation = 0;
    for (const std::string& w : workers) s.Register(w, absl::StrCat("inc-", ++incarnation));
    for (int step = 0; step < 200; ++step) {
      const std::string& worker = workers[random() % workers.size()];
      switch (random() % 10) {
        case 0:
          if (jobs < 4) {
            const char* scorer = random() % 2 ? "kl" : "zd";
            ASSERT_OK(s.Submit(absl::StrCat("jobs/j", jobs++), s.Spec("gptq", scorer, 1000)));
          }
          break;
        case 1:
          s.Register(worker, absl::StrCat("inc-", ++incarnation));
          break;
        case 2:
          if (jobs > 0 && random() % 4 == 0) {
            const std::string job = absl::StrCat("jobs/j", random() % jobs);
            s.Run([&](Draft& d) { return CancelJob(d, job); }).IgnoreError();
          }
          break;
        case 3:
          s.now_us += static_cast<int64_t>(random() % 40) * kSecond;
          s.Reap();
          break;
        case 4:
        case 5:
        case 6:
          for (const v1::Lease& lease : s.Lease(worker, 2)) held.emplace_back(worker, lease);
          break;
        default:
          if (held.empty()) break;
          const size_t i = random() % held.size();
          const auto [who, lease] = held[i];
          held.erase(held.begin() + i);
          if (random() % 6 == 0) {
            s.Fail(who, lease, "STORE_UNAVAILABLE").IgnoreError();
          } else {
            s.Complete(who, lease).IgnoreError();
          }
      }
    }
    // Let everything end.
    for (int round = 0; round < 60; ++round) {
      s.now_us += 61 * kSecond;
      s.Reap();
      s.Register("z", absl::StrCat("inc-", ++incarnation));
      s.Work("z");
    }
    EXPECT_TRUE(s.state().jobs().empty());
    EXPECT_TRUE(s.state().tasks().empty());
    std::set<std::string> artifacts;
    for (const v1::Artifact& artifact : s.artifacts) {
      EXPECT_TRUE(artifacts.insert(artifact.name()).second) << "two artifacts for one job";
    }
    for (const auto& [name, record] : s.records) {
      EXPECT_TRUE(IsTerminal(record.job().state())) << name;
      EXPECT_EQ(record.job().state() == v1::Job::SUCCEEDED, !record.job().artifact().empty());
      int64_t seq = 0;
      for (const v1::JobEvent& event : s.events[name]) EXPECT_EQ(event.seq(), ++seq);
      ASSERT_TRUE(s.events[name].back().has_state());
      EXPECT_EQ(s.events[name].back().state().to(), record.job().state());
    }
  }
}

// A second job finds the edits in the cache, and one that lost only them computes only them.
TEST(Transitions, EditsOfALayerAreCachedBesideItsUnits) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("edits", "zd", 1000)));
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  std::string lost;
  for (const auto& [key, output] : s.cache) {
    for (const v1::NamedBlob& blob : output.blobs()) {
      if (blob.name() == "layers.1.edits") lost = key;
    }
  }
  ASSERT_FALSE(lost.empty());
  s.cache.erase(lost);
  v1::JobSpec again = s.Spec("edits", "zd", 1000);
  again.mutable_quantize()->set_max_shard_bytes(1 << 20);
  ASSERT_OK(s.Submit("jobs/b", again));
  int quantized = 0;
  for (;;) {
    const std::vector<v1::Lease> leases = s.Lease("w");
    if (leases.empty()) break;
    if (leases[0].spec().has_quantize()) {
      ++quantized;
      EXPECT_TRUE(leases[0].spec().quantize().edits());
      EXPECT_EQ(leases[0].spec().quantize().units_size(), 0);
      EXPECT_EQ(leases[0].spec().quantize().layer(), 1);
    }
    ASSERT_OK(s.Complete("w", leases[0]));
  }
  EXPECT_EQ(quantized, 1);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

}  // namespace
}  // namespace lwq
