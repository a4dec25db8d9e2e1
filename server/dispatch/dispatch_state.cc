#include "server/dispatch/dispatch_state.h"

#include <algorithm>
#include <utility>

namespace lwq {
namespace {

// Of a task that waits to run again: what failure_policy.cc asks for at most, and some.
constexpr int64_t kLongestWaitUs = 120'000'000;
// Every group of tasks is held against the workers so often.
constexpr int64_t kMatchEveryUs = 1'000'000;

// A task of which nobody knows how long it takes is taken for so long.
constexpr double kUnknownSeconds = 1;
// And none for longer: tasks are made so that they take minutes, and a worker's word of how fast it
// is must not hold a tenant's turn for ever.
constexpr double kMostSeconds = 3600;

int PriorityOf(const v1::Job& job) {
  return job.priority() == v1::Job::PRIORITY_UNSPECIFIED ? v1::Job::NORMAL : job.priority();
}

template <typename T>
const T* Find(const std::map<std::string, T>& base, const Edits<T>& edits, const std::string& key) {
  auto edit = edits.find(key);
  if (edit != edits.end()) return edit->second ? &*edit->second : nullptr;
  auto it = base.find(key);
  return it == base.end() ? nullptr : &it->second;
}

template <typename T>
T* Edit(const std::map<std::string, T>& base, Edits<T>& edits, const std::string& key) {
  auto edit = edits.find(key);
  if (edit != edits.end()) return edit->second ? &*edit->second : nullptr;
  auto it = base.find(key);
  if (it == base.end()) return nullptr;
  return &*edits.emplace(key, it->second).first->second;
}

template <typename T>
void ApplyEdits(Edits<T>& edits, std::map<std::string, T>& base) {
  for (auto& [key, record] : edits) {
    if (record) {
      base[key] = *std::move(record);
    } else {
      base.erase(key);
    }
  }
}

}  // namespace

double ExpectedSeconds(const v1::TaskRecord& task, const v1::WorkerRecord* worker) {
  const double rate = worker == nullptr ? 0 : worker->registration().operations_per_second();
  return task.operations() > 0 && rate > 0 ? std::min(task.operations() / rate, kMostSeconds)
                                           : kUnknownSeconds;
}

void DispatchState::Load(v1::JobRecord job) {
  // The planner of a server that died did not finish: it is asked again.
  if (job.plan_state() == v1::JobRecord::RUNNING) job.set_plan_state(v1::JobRecord::WAITING);
  const std::string name = job.job().name();
  for (const std::string& key : job.tasks()) wanted_by_[key].push_back(name);
  jobs_[name] = std::move(job);
  CountJob(name, 1);
}

void DispatchState::Load(v1::TaskRecord task, Moment now) {
  const std::string key = task.key();
  // A row has the jobs of when it was last written.
  const std::set<std::string> known(task.jobs().begin(), task.jobs().end());
  for (const std::string& job : wanted_by_[key]) {
    if (known.count(job) == 0) task.add_jobs(job);
  }
  wanted_by_.erase(key);
  if (task.state() == v1::TaskRecord::LEASED) BeginLease(task, now);
  tasks_[key] = std::move(task);
  Index(key, now);
}

void DispatchState::Load(v1::WorkerRecord worker, Moment now) {
  const std::string id = worker.registration().worker_id();
  seen_us_[id] = worker.left() ? now.steady_us - LostAfterUs(options_) : now.steady_us;
  workers_[id] = std::move(worker);
}

void DispatchState::Load(v1::Model model) {
  std::string name = model.name();
  models_[name] = std::move(model);
}

void DispatchState::AdvanceTo(Moment now) {
  const int64_t gap = looked_us_ < 0 ? 0 : now.steady_us - looked_us_;
  looked_us_ = std::max(looked_us_, now.steady_us);
  if (gap > options_.lease_ttl_us / 3) {
    for (auto& [task, lease] : leases_) {
      lease.expires_us = std::max(lease.expires_us, now.steady_us + options_.lease_ttl_us);
      lease.progress_us += gap;
      lease.busy_us += gap;
    }
    for (auto& [worker, seen] : seen_us_) seen += gap;
    for (auto& [need, group] : ready_.groups()) {
      if (group.unmatched_since_us != 0) group.unmatched_since_us += gap;
    }
  }
  ready_.AdvanceTo(now.steady_us);
  if (matched_us_ >= 0 && now.steady_us - matched_us_ < kMatchEveryUs) return;
  matched_us_ = now.steady_us;
  for (auto& [need, group] : ready_.groups()) {
    const bool matched = std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
      return !IsLost(worker.first, now.steady_us) && worker.second.cordon_reason().empty() &&
             CanRun(worker.second.registration(), need);
    });
    if (matched) {
      group.unmatched_since_us = 0;
    } else if (group.unmatched_since_us == 0) {
      group.unmatched_since_us = std::max<int64_t>(1, now.steady_us);
    }
  }
}

void DispatchState::Apply(Changes changes, Moment now) {
  std::set<std::string> tasks;  // whose place in what is derived may be another
  for (const auto& [key, task] : changes.tasks) tasks.insert(key);
  for (const auto& [key, jobs] : changes.joined) tasks.insert(key);
  for (const std::string& key : tasks) Unindex(key);
  ApplyLeases(changes.tasks, now);
  for (const auto& [id, worker] : changes.workers) {
    if (!worker) {
      seen_us_.erase(id);
    } else if (worker->left()) {
      seen_us_[id] = now.steady_us - LostAfterUs(options_);  // as lost as one can be
    }
  }
  ApplyEdits(changes.tasks, tasks_);
  for (const auto& [key, jobs] : changes.joined) {
    for (const std::string& job : jobs) tasks_.at(key).add_jobs(job);
  }
  ApplyEdits(changes.workers, workers_);
  ApplyEdits(changes.models, models_);
  ApplyJobs(changes.jobs, tasks);
  for (const std::string& key : tasks) Index(key, now);
  if (changes.server) server_ = *changes.server;
}

void DispatchState::ApplyJobs(Edits<v1::JobRecord>& edits, std::set<std::string>& tasks) {
  const auto move_tasks = [&](const v1::JobRecord& job) {
    for (const std::string& key : job.tasks()) {
      if (tasks.insert(key).second) Unindex(key);
      best_.erase(key);
    }
  };
  for (auto& [name, job] : edits) {
    auto old = jobs_.find(name);
    const bool active = job && !IsTerminal(job->job().state());
    // What a rank is made of; all else leaves its tasks where they are.
    const bool moves =
        old != jobs_.end() && (!active || old->second.job().priority() != job->job().priority() ||
                               old->second.held() != job->held() ||
                               (old->second.job().state() == v1::Job::CANCELLING) !=
                                   (job->job().state() == v1::Job::CANCELLING));
    if (moves) move_tasks(old->second);
    if (old != jobs_.end()) CountJob(name, -1);
    if (active) {
      jobs_[name] = *std::move(job);
      CountJob(name, 1);
    } else {
      jobs_.erase(name);
    }
  }
}

void DispatchState::ApplyLeases(const Edits<v1::TaskRecord>& edits, Moment now) {
  for (const auto& [key, task] : edits) {
    const bool is_leased = task && task->state() == v1::TaskRecord::LEASED;
    const auto lease = leases_.find(key);
    if (lease != leases_.end() && (!is_leased || lease->second.epoch != task->epoch())) {
      const double took = static_cast<double>(now.steady_us - lease->second.begun_us) / 1e6;
      shares_.Settle(TenantOf(tasks_.at(key)), lease->second.expected_seconds, took);
      leases_.erase(lease);
    }
    if (is_leased && leases_.count(key) == 0) BeginLease(*task, now);
  }
}

void DispatchState::BeginLease(const v1::TaskRecord& task, Moment now) {
  const auto worker = workers_.find(task.worker());
  const double expected =
      ExpectedSeconds(task, worker == workers_.end() ? nullptr : &worker->second);
  leases_[task.key()] = {.epoch = task.epoch(),
                         .expires_us = now.steady_us + options_.lease_ttl_us,
                         .progress_us = now.steady_us,
                         .busy_us = now.steady_us,
                         .begun_us = now.steady_us,
                         .expected_seconds = expected};
  shares_.Serve(TenantOf(task), expected);
}

void DispatchState::CountJob(const std::string& name, int by) {
  const v1::JobRecord& job = jobs_.at(name);
  counts_.jobs[job.job().state()] += by;
  const std::string tenant = TenantOf(job.job());
  TenantCounts& counts = tenants_[tenant];
  (job.held() ? counts.held : counts.at_work) += by;
  if (job.job().state() == v1::Job::QUEUED) counts.queued += by;
  if (!job.held()) return;
  const HeldJob place = {-PriorityOf(job.job()), job.submit_us(), name};
  if (by > 0) held_[tenant].insert(place);
  if (by < 0) held_[tenant].erase(place);
}

const TenantCounts& DispatchState::CountsOf(const std::string& tenant) const {
  static const auto* const none = new TenantCounts;
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? *none : found->second;
}

const std::set<HeldJob>& DispatchState::HeldJobsOf(const std::string& tenant) const {
  static const auto* const none = new std::set<HeldJob>;
  const auto found = held_.find(tenant);
  return found == held_.end() ? *none : found->second;
}

void DispatchState::Unindex(const std::string& key) {
  auto found = tasks_.find(key);
  if (found == tasks_.end()) return;
  const v1::TaskRecord& task = found->second;
  if (task.state() == v1::TaskRecord::READY) {
    --counts_.ready[task.kind()];
    ready_.Remove(key);
    refused_.erase(key);
  } else if (task.state() == v1::TaskRecord::LEASED) {
    --counts_.leased[task.kind()];
    --tenants_[TenantOf(task)].leased;
    leases_of_[task.worker()].erase(key);
    if (leases_of_[task.worker()].empty()) leases_of_.erase(task.worker());
  }
}

void DispatchState::Index(const std::string& key, Moment now) {
  auto found = tasks_.find(key);
  if (found == tasks_.end() || found->second.state() != v1::TaskRecord::READY) {
    waits_.erase(key);
    best_.erase(key);
  }
  if (found == tasks_.end()) return;
  const v1::TaskRecord& task = found->second;
  if (task.state() == v1::TaskRecord::READY) {
    ++counts_.ready[task.kind()];
    if (!task.excluded().empty()) refused_.insert(key);
    const int64_t ready_at_us = ReadyAtUs(task, now);
    if (IsWanted(task)) {
      const std::string tenant = TenantOf(task);
      if (ready_.NumOf(tenant) == 0 && CountsOf(tenant).leased == 0) shares_.Join(tenant);
      ready_.Put(NeedOf(task), tenant, RankOf(task), ready_at_us);
    }
  } else if (task.state() == v1::TaskRecord::LEASED) {
    ++counts_.leased[task.kind()];
    ++tenants_[TenantOf(task)].leased;
    leases_of_[task.worker()].insert(key);
  }
}

int64_t DispatchState::ReadyAtUs(const v1::TaskRecord& task, Moment now) {
  // A wait is as long as it was when it began, whatever the clock on the wall has been set to.
  const auto [wait, begins] = waits_.try_emplace(task.key());
  auto& [by_record_us, at_us] = wait->second;
  if (begins || by_record_us != task.ready_us()) {
    by_record_us = task.ready_us();
    at_us = now.steady_us + std::clamp<int64_t>(by_record_us - now.wall_us, 0, kLongestWaitUs);
  }
  return at_us;
}

bool DispatchState::IsWanted(const v1::TaskRecord& task) const {
  if (task.models_size() > 0) return true;
  return std::any_of(task.jobs().begin(), task.jobs().end(), [&](const std::string& name) {
    auto job = jobs_.find(name);
    return job != jobs_.end() && !job->second.held() &&
           job->second.job().state() != v1::Job::CANCELLING;
  });
}

Rank DispatchState::RankOf(const v1::TaskRecord& task) {
  Best& best = best_[task.key()];
  const bool has_grown = best.num_jobs > 0 && best.num_jobs <= task.jobs_size() &&
                         task.jobs(best.num_jobs - 1) == best.last &&
                         best.num_models == task.models_size();
  // A model's verification comes before all jobs of its priority.
  if (!has_grown) best = {.priority = -v1::Job::NORMAL, .num_models = task.models_size()};
  bool first = !has_grown && task.models_size() == 0;
  for (int i = best.num_jobs; i < task.jobs_size(); ++i) {
    auto job = jobs_.find(task.jobs(i));
    if (job == jobs_.end()) continue;
    const int p = PriorityOf(job->second.job());
    if (first ||
        std::make_pair(-p, job->second.submit_us()) < std::make_pair(best.priority, best.age_us)) {
      best.priority = -p;
      best.age_us = job->second.submit_us();
    }
    first = false;
  }
  best.num_jobs = first ? 0 : task.jobs_size();
  if (best.num_jobs > 0) best.last = task.jobs(best.num_jobs - 1);
  const int layer = task.layer() < 0 ? 1 << 20 : task.layer();
  return {best.priority, best.age_us, -static_cast<int>(task.phase()), layer, task.key()};
}

const std::set<std::string>& DispatchState::LeasesOf(const std::string& worker) const {
  static const auto* const none = new std::set<std::string>;
  auto found = leases_of_.find(worker);
  return found == leases_of_.end() ? *none : found->second;
}

LeaseStatus* DispatchState::MutableLease(const std::string& task) {
  auto it = leases_.find(task);
  return it == leases_.end() ? nullptr : &it->second;
}

void DispatchState::SawWorker(const std::string& worker, int64_t steady_us) {
  const auto known = workers_.find(worker);
  if (known == workers_.end() || !known->second.left()) seen_us_[worker] = steady_us;
}

int64_t DispatchState::SeenUs(const std::string& worker) const {
  auto it = seen_us_.find(worker);
  return it == seen_us_.end() ? 0 : it->second;
}

void DispatchState::CountPoll(const std::string& worker, int by) {
  if ((polls_[worker] += by) == 0) polls_.erase(worker);
}

v1::Worker::State DispatchState::StateOf(const std::string& worker, int64_t steady_us) const {
  const auto known = workers_.find(worker);
  if (known != workers_.end() && known->second.left()) return v1::Worker::LEFT;
  if (IsLost(worker, steady_us)) return v1::Worker::LOST;
  const bool busy = !LeasesOf(worker).empty();
  const int64_t patience = busy ? SilentAfterUs(options_) : kBetweenCallsUs;
  if (polls_.count(worker) == 0 && SeenUs(worker) + patience <= steady_us) {
    return v1::Worker::SILENT;
  }
  return busy ? v1::Worker::BUSY : v1::Worker::READY;
}

const v1::JobRecord* Draft::FindJob(const std::string& name) const {
  return Find(state_.jobs(), changes.jobs, name);
}
const v1::TaskRecord* Draft::FindTask(const std::string& key) const {
  return Find(state_.tasks(), changes.tasks, key);
}
const v1::WorkerRecord* Draft::FindWorker(const std::string& id) const {
  return Find(state_.workers(), changes.workers, id);
}
const v1::Model* Draft::FindModel(const std::string& name) const {
  return Find(state_.models(), changes.models, name);
}

v1::JobRecord* Draft::EditJob(const std::string& name) {
  return Edit(state_.jobs(), changes.jobs, name);
}
v1::TaskRecord* Draft::EditTask(const std::string& key) {
  v1::TaskRecord* task = Edit(state_.tasks(), changes.tasks, key);
  const auto joined = changes.joined.find(key);
  if (joined == changes.joined.end()) return task;
  for (const std::string& job : joined->second) task->add_jobs(job);
  changes.joined.erase(joined);
  return task;
}
void Draft::JoinTask(const std::string& key, const std::string& job) {
  if (changes.tasks.count(key) > 0) {
    EditTask(key)->add_jobs(job);
  } else {
    changes.joined[key].push_back(job);
  }
}
v1::WorkerRecord* Draft::EditWorker(const std::string& id) {
  return Edit(state_.workers(), changes.workers, id);
}
v1::Model* Draft::EditModel(const std::string& name) {
  return Edit(state_.models(), changes.models, name);
}

v1::JobRecord& Draft::PutJob(v1::JobRecord job) {
  const std::string name = job.job().name();
  return *(changes.jobs[name] = std::move(job));
}
v1::TaskRecord& Draft::PutTask(v1::TaskRecord task) {
  const std::string key = task.key();
  for (const std::string& job : changes.joined[key]) task.add_jobs(job);
  changes.joined.erase(key);
  return *(changes.tasks[key] = std::move(task));
}
v1::WorkerRecord& Draft::PutWorker(v1::WorkerRecord worker) {
  const std::string id = worker.registration().worker_id();
  return *(changes.workers[id] = std::move(worker));
}
v1::Model& Draft::PutModel(v1::Model model) {
  const std::string name = model.name();
  return *(changes.models[name] = std::move(model));
}

int64_t Draft::NextEpoch() {
  if (!changes.server) changes.server = state_.server();
  changes.server->set_next_epoch(changes.server->next_epoch() + 1);
  return changes.server->next_epoch();
}

void Draft::PushEvent(v1::JobRecord& job, v1::JobEvent event) {
  const int64_t seq = job.job().last_event_seq() + 1;
  job.mutable_job()->set_last_event_seq(seq);
  event.set_seq(seq);
  event.mutable_time()->set_seconds(now_us() / 1'000'000);
  event.mutable_time()->set_nanos(static_cast<int32_t>(now_us() % 1'000'000) * 1000);
  // The snapshot inside a state event tells the sequence number that it has itself.
  if (event.has_state() && event.state().has_job()) {
    event.mutable_state()->mutable_job()->set_last_event_seq(seq);
  }
  effects.touched_jobs.insert(job.job().name());
  changes.events.emplace_back(job.job().name(), std::move(event));
}

}  // namespace lwq
