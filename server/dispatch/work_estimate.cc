#include "server/dispatch/work_estimate.h"

#include <algorithm>
#include <functional>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/dispatch/task_wait.h"
#include "server/dispatch/task_work.h"

namespace lwq {
namespace {

// How much less each earlier task says of a worker's pace than the one after it.
constexpr double kKeep = 0.8;
// What a pace is before anything was measured weighs like so many seconds of it.
constexpr double kDoubt = 2;
// A task that runs over what was expected is taken to need so much of its time again.
constexpr double kOverrun = 0.15;
constexpr size_t kMostRunning = 16;
// The pace of a worker's latest tasks, of whatever kind.
constexpr char kAllTasks[] = "";
// From where on a task's own word of how far it is counts.
constexpr double kToldFraction = 0.02;

// The workers that may take tasks of a class (empty: of any), and how fast they are; of many it is
// remembered.
class Workforce {
 public:
  Workforce() = default;  // nobody
  // `draft` and `numerics_class` outlive it.
  Workforce(const Draft& draft, const std::string& numerics_class)
      : draft_(&draft), numerics_class_(&numerics_class) {
    if (draft.state().workers().size() >= kManyWorkers) {
      shared_ = &draft.state().workforce(numerics_class);
      if (IsRemembered(*shared_, draft.steady_us())) return;
    }
    ForEach([&](const v1::WorkerRecord& worker) {
      ++memo().size;
      memo().rate += worker.registration().operations_per_second();
    });
  }

  int size() const { return memo().size; }
  double operations_per_second() const { return memo().rate; }

  // By how much a worker needs longer for such tasks than its rate says. What it has not done yet
  // is taken from its other work.
  static double Slowness(const v1::WorkerRecord& worker, const std::string& pace) {
    const auto own = worker.paces().find(pace);
    if (own != worker.paces().end() && own->second.expected_seconds() > 0) {
      return own->second.seconds() / own->second.expected_seconds();
    }
    const auto all = worker.paces().find(kAllTasks);
    if (all == worker.paces().end()) return 1;
    return (all->second.seconds() + kDoubt) / (all->second.expected_seconds() + kDoubt);
  }

  // For one worker of average speed.
  double Seconds(const std::string& pace, double operations) {
    if (size() == 0) return 0;
    double& speed = memo().speeds[pace];
    if (speed == 0) {
      ForEach([&](const v1::WorkerRecord& worker) {
        speed += worker.registration().operations_per_second() / Slowness(worker, pace);
      });
    }
    // All have left since they were counted.
    return speed > 0 ? operations * size() / speed : 0;
  }

 private:
  void ForEach(const std::function<void(const v1::WorkerRecord&)>& visit) const {
    if (draft_ == nullptr) return;
    for (const auto& [id, worker] : draft_->state().workers()) {
      if (draft_->state().IsLost(id, draft_->steady_us()) || worker.cordoned()) continue;
      if (!numerics_class_->empty() && worker.registration().numerics_class() != *numerics_class_) {
        continue;
      }
      if (worker.registration().operations_per_second() > 0) visit(worker);
    }
  }
  WorkforceMemo& memo() { return shared_ != nullptr ? *shared_ : own_; }
  const WorkforceMemo& memo() const { return shared_ != nullptr ? *shared_ : own_; }

  const Draft* draft_ = nullptr;
  const std::string* numerics_class_ = nullptr;
  WorkforceMemo own_;
  WorkforceMemo* shared_ = nullptr;  // of the state; null: they are few
};

// Of a task that a worker has: seconds since, and how far the worker says it is.
struct Running {
  double seconds = 0;
  double fraction = 0;
  std::string current;
};
Running RunningOf(const Draft& draft, const v1::TaskRecord& task) {
  Running running;
  running.seconds =
      std::max<double>(0, static_cast<double>(draft.now_us() - task.leased_us()) / 1e6);
  const auto lease = draft.state().leases().find(task.key());
  if (lease != draft.state().leases().end() && lease->second.epoch == task.epoch()) {
    running.fraction = std::clamp(lease->second.fraction, 0.0, 1.0);
    running.current = lease->second.current;
  }
  return running;
}

// What a task that was expected to take so many seconds still needs. The further it is, the more it
// tells itself.
double SecondsLeft(const Running& running, double expected) {
  const double planned = std::max(expected - running.seconds, kOverrun * running.seconds);
  if (running.fraction < kToldFraction || running.seconds < 1) return planned;
  const double told = running.seconds * (1 - running.fraction) / running.fraction;
  const double trust = expected > 0 ? std::min(1.0, 2 * running.fraction) : 1;
  return trust * told + (1 - trust) * planned;
}

bool IsUnplanned(const v1::JobRecord& job) {
  return job.plan_state() == v1::JobRecord::WAITING || job.plan_state() == v1::JobRecord::RUNNING;
}

// Tasks that are known, phase by phase, and what remains of each.
class Counter {
 public:
  Counter(const Draft& draft, const v1::JobRecord& job, bool in_seconds)
      : draft_(draft),
        job_(job),
        in_seconds_(in_seconds),
        force_(in_seconds ? Workforce(draft, job.engine().numerics_class()) : Workforce()),
        cached_(job.cached().begin(), job.cached().end()) {}

  WorkCount Run() {
    bool known = true;
    for (const std::string& key : job_.tasks()) {
      const v1::TaskRecord* task = draft_.FindTask(key);
      if (task == nullptr || cached_.count(key) > 0) continue;
      Add(*task);
      known = known && IsForeseeable(*task);
    }
    if (IsUnplanned(job_)) AddExpected();
    for (auto& [phase, count] : count_.phases) {
      count_.done += count.done;
      count_.left += count.left;
      if (!in_seconds_ || !known || force_.size() == 0) continue;
      count.seconds_left = PhaseSeconds(phase, count);
      count_.seconds_left = count_.seconds_left.value_or(0) + *count.seconds_left;
    }
    return std::move(count_);
  }

 private:
  struct Seconds {
    double sum = 0;
    double longest = 0;
  };

  // Whether it can be told how long the task takes: by its size, or by how far it is.
  bool IsForeseeable(const v1::TaskRecord& task) const {
    return task.operations() > 0 || task.state() == v1::TaskRecord::DONE ||
           RunningOf(draft_, task).fraction >= kToldFraction;
  }

  void Add(const v1::TaskRecord& task) {
    PhaseCount& count = count_.phases[task.phase()];
    // Of unknown ones, each is as good as another.
    const double operations = std::max(OperationsLeft(task), 1.0);
    if (task.state() == v1::TaskRecord::DONE) {
      count.done += operations;
      return;
    }
    const Running running = RunningOf(draft_, task);
    count.done += running.fraction * operations;
    count.left += (1 - running.fraction) * operations;
    ++count.tasks_left;
    if (!in_seconds_) return;
    const double expected =
        task.operations() > 0 ? force_.Seconds(PaceOf(task.spec()), operations) : 0;
    const bool runs = task.state() == v1::TaskRecord::LEASED;
    AddSeconds(task.phase(), runs ? SecondsLeft(running, expected) : expected, 1);
  }

  void AddSeconds(int phase, double seconds, int tasks) {
    Seconds& of_phase = seconds_[phase];
    of_phase.sum += seconds;
    of_phase.longest = std::max(of_phase.longest, seconds / std::max(tasks, 1));
  }

  // What the forecast had for phases that the job's tasks do not show yet.
  void AddExpected() {
    for (const v1::PhaseWork& expected : job_.job().work().phases()) {
      if (expected.phase() < v1::PLAN) continue;
      PhaseCount& count = count_.phases[expected.phase()];
      const double more = expected.operations() - count.done - count.left;
      if (more <= 0) continue;
      const int tasks = std::max(1, expected.tasks() - count.tasks_left);
      count.left += more;
      count.tasks_left += tasks;
      if (!in_seconds_) continue;
      AddSeconds(expected.phase(), force_.Seconds(ExpectedPace(expected.phase()), more), tasks);
    }
  }

  // As PaceOf would say of the tasks that are to come.
  std::string ExpectedPace(v1::Phase phase) const {
    v1::TaskSpec spec;
    const v1::QuantizeSpec& asked = job_.job().spec().quantize();
    switch (phase) {
      case v1::QUANTIZE:
        spec.mutable_quantize()->mutable_recipe()->set_method(asked.method());
        spec.mutable_quantize()->mutable_recipe()->set_compute(asked.compute());
        break;
      case v1::ASSEMBLE:
        spec.mutable_assemble();
        break;
      case v1::VERIFY:
        spec.mutable_verify();
        break;
      case v1::EVALUATE:
        spec.mutable_evaluate()->set_compute(asked.compute());
        break;
      default:
        spec.mutable_trial()->set_compute(asked.compute());
    }
    return PaceOf(spec);
  }

  // Segments of calibration follow each other; all other tasks of a phase may run side by side.
  double PhaseSeconds(int phase, const PhaseCount& count) const {
    const auto found = seconds_.find(phase);
    if (found == seconds_.end()) return 0;
    const int abreast =
        phase == v1::CALIBRATE ? 1 : std::min(force_.size(), std::max(count.tasks_left, 1));
    return std::max(found->second.sum / abreast, found->second.longest);
  }

  const Draft& draft_;
  const v1::JobRecord& job_;
  const bool in_seconds_;
  Workforce force_;
  const std::set<std::string> cached_;
  WorkCount count_;
  std::map<int, Seconds> seconds_;
};

v1::RunningTask RunningTaskOf(const Draft& draft, const v1::TaskRecord& task) {
  const Running now = RunningOf(draft, task);
  v1::RunningTask running;
  running.set_task(task.key());
  running.set_kind(task.kind());
  running.set_layer(task.layer());
  running.set_worker(task.worker());
  running.set_fraction(now.fraction);
  running.set_current(now.current);
  running.set_seconds(now.seconds);
  running.set_waits_for(WhyItStands(draft, task));
  return running;
}

}  // namespace

WorkCount CountWork(const Draft& draft, const v1::JobRecord& job) {
  return Counter(draft, job, /*in_seconds=*/true).Run();
}
WorkCount CountOperations(const Draft& draft, const v1::JobRecord& job) {
  return Counter(draft, job, /*in_seconds=*/false).Run();
}

v1::WorkForecast ForecastWork(const Draft& draft, const v1::JobRecord& job,
                              const std::vector<v1::PhaseWork>& later) {
  v1::JobRecord expected = job;
  *expected.mutable_job()->mutable_work()->mutable_phases() = {later.begin(), later.end()};
  // Of phases that have tasks already, the rest comes on top.
  std::map<int, double> known;
  const WorkCount before = CountWork(draft, [&] {
    v1::JobRecord alone = job;
    alone.mutable_job()->clear_work();
    return alone;
  }());
  for (v1::PhaseWork& phase : *expected.mutable_job()->mutable_work()->mutable_phases()) {
    const auto found = before.phases.find(phase.phase());
    if (found == before.phases.end()) continue;
    phase.set_operations(phase.operations() + found->second.done + found->second.left);
    phase.set_tasks(phase.tasks() + found->second.tasks_left);
  }
  const WorkCount count = CountWork(draft, expected);
  v1::WorkForecast forecast;
  for (const auto& [phase, of_phase] : count.phases) {
    if (of_phase.left <= 0) continue;
    v1::PhaseWork& work = *forecast.add_phases();
    work.set_phase(static_cast<v1::Phase>(phase));
    work.set_tasks(of_phase.tasks_left);
    work.set_operations(of_phase.left);
    if (of_phase.seconds_left) work.set_seconds(*of_phase.seconds_left);
  }
  forecast.set_operations(count.left);
  if (count.seconds_left) forecast.set_seconds(*count.seconds_left);
  forecast.set_operations_per_second(
      Workforce(draft, job.engine().numerics_class()).operations_per_second());
  return forecast;
}

void NotePace(const v1::TaskRecord& task, double seconds, v1::WorkerRecord& worker) {
  const double rate = worker.registration().operations_per_second();
  const double operations = OperationsLeft(task);
  if (rate <= 0 || operations <= 0 || seconds <= 0) return;
  for (const std::string& name : {PaceOf(task.spec()), std::string(kAllTasks)}) {
    v1::Pace& pace = (*worker.mutable_paces())[name];
    pace.set_expected_seconds(kKeep * pace.expected_seconds() + operations / rate);
    pace.set_seconds(kKeep * pace.seconds() + seconds);
  }
}

std::vector<v1::RunningTask> RunningTasks(const Draft& draft, const v1::JobRecord& job,
                                          size_t limit) {
  std::vector<v1::RunningTask> running;
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || task->state() != v1::TaskRecord::LEASED) continue;
    if (running.size() == limit) break;
    running.push_back(RunningTaskOf(draft, *task));
  }
  return running;
}

std::vector<v1::RunningTask> RunningTasksOf(const Draft& draft, const std::string& worker) {
  std::vector<v1::RunningTask> running;
  for (const std::string& key : draft.state().LeasesOf(worker)) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr) continue;
    running.push_back(RunningTaskOf(draft, *task));
    *running.back().mutable_jobs() = task->jobs();
  }
  return running;
}

void AddLiveStatus(const Draft& draft, const v1::TaskRecord& task, v1::TaskStatus& status) {
  if (std::string why = WhyItWaits(draft, task); !why.empty()) status.set_detail(std::move(why));
  if (task.state() == v1::TaskRecord::LEASED) {
    const Running running = RunningOf(draft, task);
    status.set_fraction(running.fraction);
    status.set_current(running.current);
    status.set_running_seconds(running.seconds);
    status.set_detail(WhyItStands(draft, task));
  }
  if (task.state() != v1::TaskRecord::BLOCKED) return;
  for (const v1::TaskDependency& dependency : task.dependencies()) {
    const v1::TaskRecord* on = draft.FindTask(dependency.key());
    if (on != nullptr && on->state() != v1::TaskRecord::DONE) status.add_waits_for(on->key());
  }
}

void AddLiveProgress(const Draft& draft, v1::JobRecord& job) {
  if (IsTerminal(job.job().state())) return;
  v1::Progress& progress = *job.mutable_job()->mutable_progress();
  if (progress.tasks_running() == 0) {
    job.mutable_job()->set_queue_detail(WhyJobWaits(draft, job));
  }
  const std::vector<v1::RunningTask> running = RunningTasks(draft, job, kMostRunning);
  *progress.mutable_running() = {running.begin(), running.end()};
  const auto stands = std::find_if(running.begin(), running.end(), [](const v1::RunningTask& task) {
    return !task.waits_for().empty();
  });
  if (stands != running.end()) {
    progress.set_current(absl::StrCat(stands->kind(), ": ", stands->waits_for()));
  }
  const WorkCount count = CountWork(draft, job);
  if (count.fraction()) progress.set_fraction(std::max(progress.fraction(), *count.fraction()));
  // While nothing runs, the job waits for something that nobody knows the end of.
  const bool moves = progress.tasks_running() > 0;
  if (count.seconds_left && moves) progress.set_remaining_seconds(*count.seconds_left);
  for (v1::PhaseProgress& phase : *progress.mutable_phases()) {
    const auto found = count.phases.find(phase.phase());
    if (found == count.phases.end()) {
      phase.set_fraction(phase.tasks_done() == phase.tasks_total() ? 1 : 0);
      continue;
    }
    const double all = found->second.done + found->second.left;
    phase.set_fraction(all > 0 ? found->second.done / all : 0);
    if (found->second.seconds_left && moves) {
      phase.set_remaining_seconds(*found->second.seconds_left);
    }
  }
}

}  // namespace lwq
