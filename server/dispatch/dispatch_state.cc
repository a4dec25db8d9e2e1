#include "server/dispatch/dispatch_state.h"

namespace lwq {
namespace {

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
void ApplyEdits(const Edits<T>& edits, std::map<std::string, T>& base) {
  for (const auto& [key, record] : edits) {
    if (record) {
      base[key] = *record;
    } else {
      base.erase(key);
    }
  }
}

}  // namespace

void DispatchState::Load(v1::JobRecord job) {
  // The planner of a server that died did not finish: it is asked again.
  if (job.plan_state() == v1::JobRecord::RUNNING) job.set_plan_state(v1::JobRecord::WAITING);
  std::string name = job.job().name();
  jobs_[name] = std::move(job);
}

void DispatchState::Load(v1::TaskRecord task, int64_t now_us) {
  std::string key = task.key();
  if (task.state() == v1::TaskRecord::LEASED) {
    leases_[key] = {
        .epoch = task.epoch(), .expires_us = now_us + options_.lease_ttl_us, .progress_us = now_us};
  }
  tasks_[key] = std::move(task);
}

void DispatchState::Load(v1::WorkerRecord worker) {
  std::string id = worker.registration().worker_id();
  workers_[id] = std::move(worker);
}

void DispatchState::Load(v1::Model model) {
  std::string name = model.name();
  models_[name] = std::move(model);
}

void DispatchState::Apply(const Changes& changes, int64_t now_us) {
  ApplyEdits(changes.tasks, tasks_);
  ApplyEdits(changes.workers, workers_);
  ApplyEdits(changes.models, models_);
  for (const auto& [name, job] : changes.jobs) {
    if (job && !IsTerminal(job->job().state())) {
      jobs_[name] = *job;
    } else {
      jobs_.erase(name);
    }
  }
  for (const auto& [key, task] : changes.tasks) {
    if (!task || task->state() != v1::TaskRecord::LEASED) {
      leases_.erase(key);
      continue;
    }
    LeaseStatus& lease = leases_[key];
    if (lease.epoch != task->epoch()) {
      lease = {.epoch = task->epoch(),
               .expires_us = now_us + options_.lease_ttl_us,
               .progress_us = now_us};
    }
  }
  if (changes.server) server_ = *changes.server;
}

LeaseStatus* DispatchState::MutableLease(const std::string& task) {
  auto it = leases_.find(task);
  return it == leases_.end() ? nullptr : &it->second;
}

int64_t DispatchState::SeenUs(const std::string& worker) const {
  auto it = seen_us_.find(worker);
  return it == seen_us_.end() ? 0 : it->second;
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
  return Edit(state_.tasks(), changes.tasks, key);
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
  event.mutable_time()->set_seconds(now_us_ / 1'000'000);
  event.mutable_time()->set_nanos(static_cast<int32_t>(now_us_ % 1'000'000) * 1000);
  // The snapshot inside a state event tells the sequence number that it has itself.
  if (event.has_state() && event.state().has_job()) {
    event.mutable_state()->mutable_job()->set_last_event_seq(seq);
  }
  effects.touched_jobs.insert(job.job().name());
  changes.events.emplace_back(job.job().name(), std::move(event));
}

}  // namespace lwq
