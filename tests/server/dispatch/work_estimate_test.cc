// How much of a job is done and how long the rest takes, on jobs whose tasks are made up.
#include "server/dispatch/work_estimate.h"

#include "gmock/gmock.h"
#include "server/dispatch/task_work.h"
#include "server/dispatch/transitions.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr double kRate = 1e9;  // operations a second

// A worker, and jobs whose tasks take so many operations each.
class WorkEstimateTest : public ::testing::Test {
 protected:
  WorkEstimateTest() : state_(DispatchOptions()) { AddWorker("w1", kRate); }

  void AddWorker(const std::string& id, double rate, bool cordoned = false) {
    v1::WorkerRecord worker;
    worker.mutable_registration()->set_worker_id(id);
    worker.mutable_registration()->set_operations_per_second(rate);
    worker.set_cordoned(cordoned);
    state_.Load(worker, Now());
    state_.SawWorker(id, now_us_);
  }
  void AddTask(v1::JobRecord& job, const std::string& key, v1::Phase phase, double seconds,
               v1::TaskRecord::State state) {
    v1::TaskRecord task;
    task.set_key(key);
    task.set_kind("score");
    task.mutable_spec()->mutable_score()->set_scorer("kl");
    task.set_phase(phase);
    task.set_state(state);
    task.set_operations(seconds * kRate);
    task.add_jobs(job.job().name());
    if (state == v1::TaskRecord::LEASED) {
      task.set_worker("w1");
      task.set_epoch(1);
      task.set_leased_us(now_us_);
    }
    tasks_.push_back(task);
    job.add_tasks(key);
  }
  v1::JobRecord NewJob() const {
    v1::JobRecord job;
    job.mutable_job()->set_name("jobs/a");
    job.mutable_job()->set_state(v1::Job::RUNNING);
    job.set_plan_state(v1::JobRecord::PLANNED);
    return job;
  }
  void Load(const v1::JobRecord& job) {
    state_.Load(job);
    for (const v1::TaskRecord& task : tasks_) state_.Load(task, Now());
  }
  Moment Now() const { return {.wall_us = now_us_, .steady_us = now_us_}; }
  WorkCount Count(const v1::JobRecord& job) const { return CountWork(Draft(state_, Now()), job); }

  int64_t now_us_ = 1'000'000'000;
  DispatchState state_;
  std::vector<v1::TaskRecord> tasks_;
};

TEST_F(WorkEstimateTest, TasksWeighWhatTheyTake) {
  v1::JobRecord job = NewJob();
  AddTask(job, "small", v1::SCORE, 1, v1::TaskRecord::DONE);
  AddTask(job, "large", v1::SCORE, 9, v1::TaskRecord::READY);
  Load(job);
  const WorkCount count = Count(job);
  EXPECT_DOUBLE_EQ(*count.fraction(), 0.1);
  EXPECT_DOUBLE_EQ(*count.seconds_left, 9);
}

TEST_F(WorkEstimateTest, WorkersShareAPhaseButNotATaskAndNotSegments) {
  AddWorker("w2", kRate);
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::READY);
  AddTask(job, "b", v1::SCORE, 4, v1::TaskRecord::READY);
  AddTask(job, "c", v1::VERIFY, 3, v1::TaskRecord::BLOCKED);
  AddTask(job, "d", v1::CALIBRATE, 5, v1::TaskRecord::READY);
  AddTask(job, "e", v1::CALIBRATE, 5, v1::TaskRecord::BLOCKED);
  Load(job);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 4 + 3 + 10);
}

TEST_F(WorkEstimateTest, NobodyIsCountedWhoTakesNothing) {
  AddWorker("cordoned", kRate, /*cordoned=*/true);
  AddWorker("unmeasured", 0);
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::READY);
  AddTask(job, "b", v1::SCORE, 4, v1::TaskRecord::READY);
  Load(job);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 8);
  now_us_ += LostAfterUs(state_.options()) + 1;  // and w1 is lost
  EXPECT_EQ(Count(job).seconds_left, std::nullopt);
}

TEST_F(WorkEstimateTest, NobodyIsCountedWhoIsOfAnotherClass) {
  v1::WorkerRecord gpu;
  gpu.mutable_registration()->set_worker_id("gpu");
  gpu.mutable_registration()->set_numerics_class("cuda-1");
  gpu.mutable_registration()->set_operations_per_second(9 * kRate);
  state_.Load(gpu, Now());
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 9, v1::TaskRecord::READY);
  job.mutable_engine()->set_numerics_class("cuda-1");
  Load(job);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 1);
  job.mutable_engine()->set_numerics_class("cpu-1");
  EXPECT_EQ(Count(job).seconds_left, std::nullopt);
}

TEST_F(WorkEstimateTest, ARunningTaskTellsHowFarItIs) {
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 10, v1::TaskRecord::LEASED);
  Load(job);
  now_us_ += 4'000'000;
  state_.SawWorker("w1", now_us_);
  // It has said nothing: what was expected, less what has passed.
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 6);
  // Half done after 4 s: 4 s more, whatever was expected.
  state_.MutableLease("a")->fraction = 0.5;
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 4);
  EXPECT_DOUBLE_EQ(*Count(job).fraction(), 0.5);
  // Over time and silent: some more, never nothing.
  state_.MutableLease("a")->fraction = 0;
  now_us_ += 96'000'000;
  state_.SawWorker("w1", now_us_);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 15);
}

TEST_F(WorkEstimateTest, AWorkersPaceIsLearnt) {
  v1::TaskRecord done;
  done.set_operations(10 * kRate);
  done.mutable_spec()->mutable_score()->set_scorer("kl");
  v1::WorkerRecord worker = state_.workers().at("w1");
  NotePace(done, /*seconds=*/30, worker);  // three times what was expected
  state_.Load(worker, Now());
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::READY);
  Load(job);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 12);
  // The newest count most: many that keep to what is expected make it forget.
  for (int i = 0; i < 30; ++i) NotePace(done, 10, worker);
  state_.Load(worker, Now());
  EXPECT_NEAR(*Count(job).seconds_left, 4, 0.1);
}

TEST_F(WorkEstimateTest, WhatTasksTookStaysSoWhenAWorkerMeasuresItselfAnew) {
  v1::JobRecord job = NewJob();
  AddTask(job, "done", v1::SCORE, 4, v1::TaskRecord::DONE);
  AddTask(job, "next", v1::SCORE, 4, v1::TaskRecord::READY);
  Load(job);
  v1::WorkerRecord worker = state_.workers().at("w1");
  NotePace(tasks_[0], 8, worker);
  state_.Load(worker, Now());
  ASSERT_DOUBLE_EQ(*Count(job).seconds_left, 8);
  Draft draft(state_, Now());
  v1::RegisterWorkerRequest request = worker.registration();
  request.set_incarnation("started anew");
  request.set_operations_per_second(kRate / 3);
  ASSERT_TRUE(RegisterWorker(draft, request).ok());
  state_.Apply(draft.changes, Now());
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 8);
}

TEST_F(WorkEstimateTest, KindsThatWereNotSeenYetFollowTheOthers) {
  v1::TaskRecord done;
  done.set_operations(1000 * kRate);
  done.mutable_spec()->mutable_trial();
  v1::WorkerRecord worker = state_.workers().at("w1");
  NotePace(done, /*seconds=*/2000, worker);
  state_.Load(worker, Now());
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::READY);
  Load(job);
  EXPECT_NEAR(*Count(job).seconds_left, 8, 0.1);
}

TEST_F(WorkEstimateTest, WhatIsToComeCountsUntilThePlanStands) {
  v1::JobRecord job = NewJob();
  job.set_plan_state(v1::JobRecord::WAITING);
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::DONE);
  AddTask(job, "b", v1::PLAN, 2, v1::TaskRecord::DONE);
  v1::PhaseWork later;
  later.set_phase(v1::PLAN);
  later.set_tasks(3);
  later.set_operations(6 * kRate);
  *job.mutable_job()->mutable_work()->add_phases() = later;
  Load(job);
  EXPECT_DOUBLE_EQ(Count(job).left, 4 * kRate);
  EXPECT_DOUBLE_EQ(*Count(job).fraction(), 0.6);
  job.set_plan_state(v1::JobRecord::PLANNED);
  EXPECT_DOUBLE_EQ(*Count(job).fraction(), 1);
}

TEST_F(WorkEstimateTest, TheCacheSparesWork) {
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 4, v1::TaskRecord::DONE);
  AddTask(job, "b", v1::SCORE, 4, v1::TaskRecord::READY);
  job.add_cached("a");
  Load(job);
  EXPECT_DOUBLE_EQ(*Count(job).fraction(), 0);
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 4);
}

TEST_F(WorkEstimateTest, NoTimeIsClaimedForWorkOfUnknownSize) {
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::EVALUATE, 0, v1::TaskRecord::LEASED);
  Load(job);
  now_us_ += 10'000'000;
  state_.SawWorker("w1", now_us_);
  EXPECT_EQ(Count(job).seconds_left, std::nullopt);
  state_.MutableLease("a")->fraction = 0.25;  // until it says itself
  EXPECT_DOUBLE_EQ(*Count(job).seconds_left, 30);
}

TEST_F(WorkEstimateTest, LiveProgressNamesWhatRuns) {
  v1::JobRecord job = NewJob();
  AddTask(job, "a", v1::SCORE, 10, v1::TaskRecord::LEASED);
  Load(job);
  now_us_ += 5'000'000;
  state_.SawWorker("w1", now_us_);
  state_.MutableLease("a")->fraction = 0.5;
  job.mutable_job()->mutable_progress()->set_tasks_running(1);
  job.mutable_job()->mutable_progress()->add_phases()->set_phase(v1::SCORE);
  AddLiveProgress(Draft(state_, Now()), job);
  const v1::Progress& progress = job.job().progress();
  ASSERT_THAT(progress.running(), SizeIs(1));
  EXPECT_EQ(progress.running(0).worker(), "w1");
  EXPECT_DOUBLE_EQ(progress.running(0).seconds(), 5);
  EXPECT_DOUBLE_EQ(progress.fraction(), 0.5);
  EXPECT_DOUBLE_EQ(progress.phases(0).fraction(), 0.5);
  EXPECT_DOUBLE_EQ(progress.remaining_seconds(), 5);
  EXPECT_THAT(RunningTasksOf(Draft(state_, Now()), "w1"), SizeIs(1));
  EXPECT_EQ(RunningTasksOf(Draft(state_, Now()), "w1")[0].jobs(0), "jobs/a");
}

// A whole job: what was forecast at submission is what its tasks are counted as in the end.
TEST(WorkForecastTest, AJobKnowsItsWorkFromTheBeginning) {
  Scenario s;
  s.Register("w1", "i1");
  EXPECT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1 << 30)));
  const v1::WorkForecast work = s.records["jobs/a"].job().work();
  EXPECT_GT(work.operations(), 0);
  std::set<int> phases;
  for (const v1::PhaseWork& phase : work.phases()) {
    phases.insert(phase.phase());
    EXPECT_GT(phase.operations(), 0) << v1::Phase_Name(phase.phase());
    EXPECT_GT(phase.tasks(), 0) << v1::Phase_Name(phase.phase());
  }
  EXPECT_THAT(phases, ::testing::ElementsAre(v1::PREFLIGHT, v1::CALIBRATE, v1::SCORE, v1::QUANTIZE,
                                             v1::ASSEMBLE, v1::VERIFY, v1::EVALUATE));
  // Nobody has measured a worker here.
  EXPECT_FALSE(work.has_seconds());
  double before = 0;
  for (int i = 0; i < 1000 && s.StateOf("jobs/a") != v1::Job::SUCCEEDED; ++i) {
    if (s.Work("w1", 1).empty()) break;
    const double fraction = s.records["jobs/a"].job().progress().fraction();
    EXPECT_GE(fraction, before);
    before = fraction;
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  EXPECT_DOUBLE_EQ(before, 1);
}

// A scorer that runs every format of a unit takes longer than one that runs two.
TEST(WorkForecastTest, ScoringInFullIsMoreWork) {
  const auto score_operations = [](const std::string& scorer) {
    Scenario s;
    s.Register("w1", "i1");
    EXPECT_OK(s.Submit("jobs/a", s.Spec("gptq", scorer, 1 << 30)));
    double operations = 0;
    for (const v1::PhaseWork& phase : s.records["jobs/a"].job().work().phases()) {
      if (phase.phase() == v1::SCORE) operations += phase.operations();
    }
    return operations;
  };
  EXPECT_GT(score_operations("kl-full"), score_operations("kl"));
}

// AWQ that rounds by GPTQ sweeps over blocks as often as GPTQ does when nobody says how often.
TEST(WorkForecastTest, RoundingByGptqSweepsOverBlocks) {
  const Scenario s;
  const auto operations = [&](const std::string& method, const std::string& option,
                              const std::string& value) {
    v1::JobSpec spec = s.Spec(method, "kl", 1 << 30);
    (*spec.mutable_quantize()->mutable_method_options())[option] = value;
    GraphInput input = s.InputOf("jobs/a", spec);
    input.method.add_evidence("second-moments");
    v1::TaskSpec task;
    v1::UnitFormats& unit = *task.mutable_quantize()->add_units();
    unit.set_unit("layers.0.mlp.down_proj");
    unit.add_formats("gguf-q4_0");
    return WorkCounter(input).Operations(task);
  };
  const double swept = operations("gptq", "block-sweeps", "4");
  EXPECT_GT(swept, operations("gptq", "block-sweeps", "0"));
  EXPECT_EQ(operations("awq", "rounding", "gptq"), swept);
  EXPECT_LT(operations("awq", "rounding", "nearest"), swept);
}

TEST(WorkForecastTest, AnotherBudgetIsLessWork) {
  Scenario s;
  s.Register("w1", "i1");
  EXPECT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1 << 30)));
  s.Work("w1");
  EXPECT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 1 << 29)));
  const auto operations = [&](const std::string& job) {
    return s.records[job].job().work().operations();
  };
  EXPECT_LT(operations("jobs/b"), operations("jobs/a") / 2);
}

// By its subject, the operations that each evaluation of a job had in the end, where the source's
// text turned out to have so many tokens.
std::map<std::string, double> EvaluationsOf(const std::string& job, int64_t rolling_tokens,
                                            Scenario& s) {
  EXPECT_OK(s.Submit(job, s.Spec("rtn", "zd", 1 << 30)));
  std::map<std::string, std::string> keys;
  for (;;) {
    const std::vector<v1::Lease> leases = s.Lease("w1");
    if (leases.empty()) break;
    v1::TaskOutput output = Scenario::OutputOf(leases[0]);
    if (leases[0].spec().has_evaluate()) {
      const std::string& subject = leases[0].spec().evaluate().subject();
      keys[leases[0].task()] = subject;
      if (subject == "source") {
        output.mutable_evaluate()->mutable_text()->set_num_rolling_tokens(rolling_tokens);
      }
    }
    EXPECT_OK(s.CompleteWith("w1", leases[0], output));
  }
  EXPECT_EQ(s.StateOf(job), v1::Job::SUCCEEDED);
  std::map<std::string, double> operations;
  for (const v1::TaskStatus& task : s.records[job].finished()) {
    if (keys.count(task.task()) > 0) operations[keys[task.task()]] = task.operations();
  }
  return operations;
}

// A text of figures has a token per byte: once the source's evaluation has counted them, that is
// what both are known to have computed, and the artifact's is expected to.
TEST(WorkForecastTest, TheTokensOfATextAreCountedByTheFirstWhoReadsIt) {
  Scenario few, many;
  few.Register("w1", "i1");
  many.Register("w1", "i1");
  const auto of_few = EvaluationsOf("jobs/a", 1000, few);
  const auto of_many = EvaluationsOf("jobs/a", 4'000'000, many);
  for (const char* subject : {"source", "artifact"}) {
    EXPECT_GT(of_many.at(subject), 2 * of_few.at(subject)) << subject;
  }
  // A second budget reads the source's measurement from the cache.
  many.plan_bits["jobs/b"] = 3;
  EXPECT_OK(many.Submit("jobs/b", many.Spec("rtn", "zd", 1 << 29)));
  double counted = 0;
  while (counted == 0) {
    const std::vector<v1::Lease> leases = many.Lease("w1");
    ASSERT_FALSE(leases.empty());
    if (leases[0].spec().has_evaluate()) {
      counted = many.state().tasks().at(leases[0].task()).operations();
    }
    EXPECT_OK(many.Complete("w1", leases[0]));
  }
  EXPECT_EQ(counted, of_many.at("artifact"));
}

TEST(WorkForecastTest, ALostLeaseTakesNothingBack) {
  Scenario s;
  s.Register("w1", "i1");
  EXPECT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1 << 30)));
  s.Work("w1", 1);  // preflight
  const std::vector<v1::Lease> leases = s.Lease("w1");
  ASSERT_THAT(leases, SizeIs(1));
  s.Beat("w1", leases[0]);
  const double before = s.records["jobs/a"].job().progress().fraction();
  const_cast<DispatchState&>(s.state()).MutableLease(leases[0].task())->fraction = 0.5;
  s.now_us += 120'000'000;
  s.Reap();
  EXPECT_GT(s.records["jobs/a"].job().progress().fraction(), before);
}

}  // namespace
}  // namespace lwq::testing
