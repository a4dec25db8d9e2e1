#include "server/dispatch/graph_install.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "records/blob_names.h"
#include "server/dispatch/evaluation_work.h"

namespace lwq {
namespace {

// The output of a quantize task that the cache has in part or whole; sets what is missing.
void FillFromProducts(const CachedResults& cached, v1::TaskRecord& task) {
  v1::TaskOutput& output = *task.mutable_output();
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  for (const v1::UnitFormats& unit : task.spec().quantize().units()) {
    v1::UnitFormats missing;
    for (const std::string& format : unit.formats()) {
      const auto it = cached.find(task.product_keys().at(UnitBlobName(unit.unit(), format)));
      if (it == cached.end()) {
        missing.add_formats(format);
        continue;
      }
      output.mutable_blobs()->MergeFrom(it->second.blobs());
      report.mutable_linears()->MergeFrom(it->second.quantize().report().linears());
    }
    if (missing.formats().empty()) continue;
    missing.set_unit(unit.unit());
    *task.add_missing_units() = std::move(missing);
  }
  if (!task.spec().quantize().edits()) return;
  const auto edits = cached.find(task.product_keys().at(EditsBlobName(task.layer())));
  task.set_missing_edits(edits == cached.end());
  if (edits != cached.end()) output.mutable_blobs()->MergeFrom(edits->second.blobs());
}

// A new record for `node`, DONE when the cache has all of it.
v1::TaskRecord NewRecord(const TaskNode& node, const CachedResults& cached) {
  v1::TaskRecord task = node;
  task.set_state(v1::TaskRecord::BLOCKED);
  if (node.product_keys_size() > 0) {
    FillFromProducts(cached, task);
    if (task.missing_units().empty() && !task.missing_edits()) {
      task.set_state(v1::TaskRecord::DONE);
    }
  } else if (auto it = cached.find(node.key()); it != cached.end()) {
    *task.mutable_output() = it->second;
    task.set_state(v1::TaskRecord::DONE);
  }
  task.set_cached(task.state() == v1::TaskRecord::DONE);
  return task;
}

// Tasks of the job that wait for a worker and read what `key` makes wait for that instead.
void BlockDependents(Draft& draft, const std::string& name, const std::string& key) {
  const v1::JobRecord* job = draft.FindJob(name);
  if (job == nullptr) return;
  for (const std::string& other : job->tasks()) {
    const v1::TaskRecord* task = draft.FindTask(other);
    if (task == nullptr || task->state() != v1::TaskRecord::READY) continue;
    const bool reads = std::any_of(task->dependencies().begin(), task->dependencies().end(),
                                   [&](const auto& d) { return d.key() == key; });
    if (reads) draft.EditTask(other)->set_state(v1::TaskRecord::BLOCKED);
  }
}

// Whether it is handed out: for a model, or a job that is neither held nor being cancelled.
bool IsWantedNow(const Draft& draft, const v1::TaskRecord& task) {
  if (task.models_size() > 0) return true;
  return std::any_of(task.jobs().begin(), task.jobs().end(), [&](const std::string& name) {
    const v1::JobRecord* job = draft.FindJob(name);
    return job != nullptr && !job->held() && !IsTerminal(job->job().state()) &&
           job->job().state() != v1::Job::CANCELLING;
  });
}

bool AlwaysNeeded(const TaskNode& node, const std::set<std::string>& plan_tasks) {
  return node.kind() == "score" || node.kind() == "assemble" || node.kind() == "verify" ||
         node.kind() == "evaluate" || plan_tasks.count(node.key()) > 0;
}

// A graph's tasks as they will be: those of the state that will be shared, and what is new.
class Installation {
 public:
  Installation(Draft& draft, const v1::Job& job, const JobGraph& graph, const CachedResults& cached)
      : draft_(draft) {
    for (const TaskNode& node : graph.tasks) {
      const v1::TaskRecord* there = draft.FindTask(node.key());
      // A job that is being cancelled may hold one that was given up: for others it begins anew.
      if (there != nullptr && there->state() != v1::TaskRecord::FAILED) continue;
      v1::TaskRecord task = NewRecord(node, cached);
      task.set_tenant(job.tenant());
      if (job.spec().quantize().no_cache()) task.set_only_job(job.name());
      if (there != nullptr) *task.mutable_jobs() = there->jobs();
      new_.emplace(node.key(), std::move(task));
    }
    // Jobs that share a task may have its inputs from different tasks: calibrations in other
    // segments, say. Those that it was to read may have gone with the job that made them.
    for (const TaskNode& node : graph.tasks) {
      if (CanBeDone(node.key())) continue;
      *draft.EditTask(node.key())->mutable_dependencies() = node.dependencies();
      can_be_done_.clear();
    }
  }

  // Null when there is none.
  const v1::TaskRecord* Find(const std::string& key) const {
    auto it = new_.find(key);
    return it != new_.end() ? &it->second : draft_.FindTask(key);
  }
  // The task, in the draft if it is new.
  const v1::TaskRecord& Put(const std::string& key) {
    if (auto it = new_.find(key); it != new_.end()) {
      draft_.PutTask(std::move(it->second));
      new_.erase(it);
    }
    return *draft_.FindTask(key);
  }

 private:
  // Whether it is done, under way, or somebody makes all that it reads.
  bool CanBeDone(const std::string& key) {
    const v1::TaskRecord* task = Find(key);
    if (task == nullptr || task->state() == v1::TaskRecord::FAILED) return false;
    if (task->state() != v1::TaskRecord::BLOCKED || new_.count(key) > 0) return true;
    const auto [known, is_new] = can_be_done_.emplace(key, true);
    if (!is_new) return known->second;
    const bool can = std::all_of(task->dependencies().begin(), task->dependencies().end(),
                                 [&](const auto& dependency) {
                                   return dependency.order_only() || CanBeDone(dependency.key());
                                 });
    return can_be_done_[key] = can;
  }

  Draft& draft_;
  std::map<std::string, v1::TaskRecord> new_;
  std::map<std::string, bool> can_be_done_;  // of those that are in the state
};

}  // namespace

void InstallGraph(Draft& draft, v1::JobRecord& job, const JobGraph& graph,
                  const CachedResults& cached) {
  Installation tasks(draft, job.job(), graph, cached);
  const std::set<std::string> plan_tasks(graph.plan_tasks.begin(), graph.plan_tasks.end());
  std::set<std::string> needed;
  std::deque<std::string> open;
  for (const TaskNode& node : graph.tasks) {
    if (AlwaysNeeded(node, plan_tasks)) open.push_back(node.key());
  }
  while (!open.empty()) {
    const std::string key = open.front();
    open.pop_front();
    const v1::TaskRecord* task = tasks.Find(key);
    if (task == nullptr || !needed.insert(key).second) continue;
    if (task->state() == v1::TaskRecord::DONE) continue;
    for (const v1::TaskDependency& d : task->dependencies()) open.push_back(d.key());
  }
  std::vector<std::string> keys;  // in the graph's order, then what shared tasks depend on
  for (const TaskNode& node : graph.tasks) {
    const v1::TaskRecord* task = tasks.Find(node.key());
    // Finished layers stay in view, so that a job shows what it was spared.
    const bool show = task->state() == v1::TaskRecord::DONE && node.kind() == "quantize";
    if (needed.count(node.key()) > 0 || show) {
      keys.push_back(node.key());
      needed.erase(node.key());
    }
  }
  for (const std::string& key : needed) keys.push_back(key);
  for (const std::string& key : keys) {
    if (Contains(job.tasks(), key)) continue;
    const v1::TaskRecord& task = tasks.Put(key);
    // Nobody was to have it while it was only a cancelled job's, or one's that is held.
    if (task.state() == v1::TaskRecord::READY && !IsWantedNow(draft, task)) {
      ++draft.effects.tasks_ready;
    }
    draft.JoinTask(key, job.job().name());
    job.add_tasks(key);
    if (task.state() == v1::TaskRecord::DONE) {
      job.add_cached(key);
      PushTaskEvent(draft, job, task, v1::TaskEvent::CACHED, "");
    }
  }
  RecountEvaluations(draft, job);
  job.set_expected_tasks(graph.expected_tasks);
}

void RunAgain(Draft& draft, const std::string& key, const std::string& name,
              const CachedResults& cached) {
  const v1::TaskRecord* done = draft.FindTask(key);
  if (done == nullptr || done->state() != v1::TaskRecord::DONE) return;
  TaskNode node = *done;
  node.clear_output();
  node.clear_missing_units();
  node.clear_missing_edits();
  node.clear_completion_id();
  node.clear_untold();
  node.clear_worker();
  node.clear_incarnation();
  v1::TaskRecord fresh = NewRecord(node, cached);
  for (const std::string& other : fresh.jobs()) {
    v1::JobRecord* job = draft.EditJob(other);
    if (other == name || job == nullptr || IsTerminal(job->job().state())) continue;
    job->set_rebuilding(true);
    draft.effects.rebuild_jobs.insert(other);
  }
  const std::vector<std::string> jobs(fresh.jobs().begin(), fresh.jobs().end());
  draft.PutTask(std::move(fresh));
  for (const std::string& job : jobs) BlockDependents(draft, job, key);
}

}  // namespace lwq
