#include "tests/simulation/promises.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "records/blob_names.h"
#include "records/canonical.h"
#include "server/dispatch/task_match.h"
#include "server/service/record_writes.h"

namespace lwq::simulation {
namespace {

template <typename T>
T Parse(const Write& write) {
  T message;
  message.ParseFromString(write.record.value);
  return message;
}

bool MayFollow(const v1::JobRecord& before, const v1::JobRecord& after) {
  const v1::Job::State from = before.job().state(), to = after.job().state();
  const bool begun_again = after.job().generation() == before.job().generation() + 1;
  if (begun_again) return from == v1::Job::FAILED || from == v1::Job::CANCELLED;
  if (after.job().generation() != before.job().generation()) return false;
  if (IsTerminal(from) || from == to) return from == to;
  if (from == v1::Job::CANCELLING) return to == v1::Job::CANCELLED;
  return from != v1::Job::RUNNING || to != v1::Job::QUEUED;
}

template <typename K>
bool SameCounts(std::map<K, int> a, std::map<K, int> b) {
  std::erase_if(a, [](const auto& entry) { return entry.second == 0; });
  std::erase_if(b, [](const auto& entry) { return entry.second == 0; });
  return a == b;
}

// With its jobs in an order that is the same after a start, too.
std::string InOrder(v1::TaskRecord task) {
  std::sort(task.mutable_jobs()->begin(), task.mutable_jobs()->end());
  return CanonicalBytes(task);
}

template <typename T>
std::set<std::string> KeysOf(const std::map<std::string, T>& records) {
  std::set<std::string> keys;
  for (const auto& [key, record] : records) keys.insert(key);
  return keys;
}

}  // namespace

std::vector<v1::BlobRef> BlobsOf(const google::protobuf::Message& record) {
  std::vector<v1::BlobRef> blobs;
  if (const auto* blob = dynamic_cast<const v1::BlobRef*>(&record)) {
    if (!blob->sha256().empty()) blobs.push_back(*blob);
    return blobs;
  }
  const google::protobuf::Reflection* reflection = record.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection->ListFields(record, &fields);
  const auto add = [&](const google::protobuf::Message& part) {
    const std::vector<v1::BlobRef> more = BlobsOf(part);
    blobs.insert(blobs.end(), more.begin(), more.end());
  };
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      add(reflection->GetMessage(record, field));
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(record, field); ++i) {
      add(reflection->GetRepeatedMessage(record, field, i));
    }
  }
  return blobs;
}

void Promises::CheckNamed(const google::protobuf::Message& record, const std::string& where) {
  for (const v1::BlobRef& blob : BlobsOf(record)) {
    if (is_damaged(blob.sha256())) continue;
    const auto there = blobs_.Has({blob.sha256(), blob.size_bytes()});
    if (there.ok() && *there) continue;
    world_.Break("I10", absl::StrCat(where, " names blob ", blob.sha256().substr(0, 12),
                                     ", which is not there"));
  }
}

void Promises::SawGrant(const v1::TaskRecord& task) {
  // One commit may hand out several.
  if (task.epoch() <= last_epoch_ || !epochs_.insert(task.epoch()).second) {
    world_.Break("I6", absl::StrCat("task ", task.key().substr(0, 12), " is handed out in epoch ",
                                    task.epoch(), " after ", last_epoch_));
  }
  heard_of_[{task.key(), task.epoch()}] = world_.now();
  auto done = done_.find(task.key());
  if (done == done_.end() || task.spec().has_ingest()) return;
  const std::vector<v1::BlobRef> left = BlobsOf(done->second);
  const bool lost = std::any_of(left.begin(), left.end(),
                                [&](const v1::BlobRef& blob) { return is_damaged(blob.sha256()); });
  if (!lost) {
    world_.Break("I7", absl::StrCat(task.kind(), " ", task.key().substr(0, 12),
                                    " is done and handed out again, to ", task.worker()));
  }
}

void Promises::SawDone(const v1::TaskRecord& before, const v1::TaskRecord& task) {
  if (before.state() != v1::TaskRecord::LEASED) return;  // the cache had it
  if (before.epoch() != task.epoch() || before.worker() != task.worker() ||
      before.incarnation() != task.incarnation()) {
    world_.Break("I6", absl::StrCat("task ", task.key().substr(0, 12), " leased to ",
                                    before.worker(), " in epoch ", before.epoch(), " is done by ",
                                    task.worker(), " in ", task.epoch()));
  }
  if (!accepted_.emplace(std::make_pair(task.key(), task.epoch()), task.completion_id()).second) {
    world_.Break("I6", absl::StrCat("task ", task.key().substr(0, 12),
                                    " is completed twice in epoch ", task.epoch()));
  }
  done_[task.key()] = task.output();
  std::vector<std::string> results;
  // Of a quantize task what it was asked for; the rest came from the cache, and may be lost by now.
  for (const v1::UnitFormats& unit : task.missing_units()) {
    for (const std::string& format : unit.formats()) {
      results.push_back(task.product_keys().at(UnitBlobName(unit.unit(), format)));
    }
  }
  if (task.product_keys().empty() && !task.model().empty() && !task.spec().has_ingest()) {
    results.push_back(task.key());
  }
  for (const std::string& key : results) {
    if (cache_.count(key) > 0) continue;
    const auto row = rows_.Get(Table::kCache, key);
    if (row.ok()) continue;
    world_.Break("commit", absl::StrCat("task ", task.key().substr(0, 12),
                                        " is done and its result is not in the cache"));
  }
}

void Promises::SawTask(const Write& write) {
  const std::string& key = write.record.key;
  if (write.remove) {
    // The last task of a job is done and goes with it: the cache says by which completion.
    if (tasks_[key].state() == v1::TaskRecord::LEASED && !completion_.completion_id().empty()) {
      accepted_.emplace(std::make_pair(key, tasks_[key].epoch()), completion_.completion_id());
      if (completion_.key() == key) done_[key] = completion_.output();
    }
    if (tasks_[key].state() == v1::TaskRecord::LEASED) LeaseEnds(tasks_[key]);
    tasks_.erase(key);
    return;
  }
  const v1::TaskRecord task = Parse<v1::TaskRecord>(write);
  const v1::TaskRecord before = tasks_[key];
  const bool was_leased = before.state() == v1::TaskRecord::LEASED;
  if (task.state() == v1::TaskRecord::LEASED && (!was_leased || before.epoch() != task.epoch())) {
    if (was_leased) {
      world_.Break("I8",
                   absl::StrCat("task ", key.substr(0, 12), " is taken from ", before.worker(),
                                " and given to ", task.worker(), " at once"));
    }
    SawGrant(task);
    began_[key] = world_.now();
    workers_.insert(task.worker());
    turns_.erase(TenantOf(task));
  } else if (task.state() == v1::TaskRecord::LEASED &&
             (before.worker() != task.worker() || before.incarnation() != task.incarnation())) {
    world_.Break("I8", absl::StrCat("the lease of task ", key.substr(0, 12), " changes hands"));
  }
  if (was_leased && task.state() != v1::TaskRecord::LEASED) LeaseEnds(before);
  if (task.state() == v1::TaskRecord::DONE && before.state() != v1::TaskRecord::DONE) {
    SawDone(before, task);
  }
  // Taken back as lost although it was heard of: from the last time on, as the server's clocks run.
  if (was_leased && task.lost_count() > before.lost_count()) {
    auto heard = heard_of_.find({key, before.epoch()});
    if (heard != heard_of_.end() && started_anew_.count(before.worker()) == 0 &&
        world_.now() < heard->second + absl::Microseconds(dispatch_.lease_ttl_us)) {
      world_.Break("I8",
                   absl::StrCat("the lease of ", before.worker(), " on ", key.substr(0, 12),
                                " ran out ", absl::FormatDuration(world_.now() - heard->second),
                                " after it was heard of"));
    }
  }
  tasks_[key] = task;
  if (task.state() == v1::TaskRecord::DONE) CheckNamed(task.output(), absl::StrCat("task ", key));
}

void Promises::SawJob(const Write& write) {
  const std::string& name = write.record.key;
  if (write.remove) {
    const bool ended = jobs_.count(name) > 0 && IsTerminal(jobs_.at(name).job().state());
    if (!ended || to_delete_.count(name) == 0) {
      world_.Break("delete", absl::StrCat(name, " is deleted, and nobody asked for it"));
    }
    jobs_.erase(name);
    deleted_.insert(name);
    return;
  }
  const v1::JobRecord job = Parse<v1::JobRecord>(write);
  auto before = jobs_.find(name);
  if (before != jobs_.end() && !MayFollow(before->second, job)) {
    world_.Break(
        "I1", absl::StrCat(name, " goes from ", v1::Job::State_Name(before->second.job().state()),
                           " to ", v1::Job::State_Name(job.job().state()), ", begun ",
                           job.job().generation(), " times again"));
  }
  jobs_[name] = job;
}

void Promises::SawEvent(const Write& write) {
  if (write.remove) return;
  const std::string job = write.record.key.substr(0, write.record.key.rfind('/'));
  const v1::JobEvent event = Parse<v1::JobEvent>(write);
  if (event.seq() != ++last_seq_[job]) {
    world_.Break("I5",
                 absl::StrCat("event ", event.seq(), " of ", job, " follows ", last_seq_[job] - 1));
  }
  if (!event.has_state() || !IsTerminal(event.state().to())) return;
  const int generation = event.state().job().generation();
  if (++ends_[job][generation] > 1) {
    world_.Break("I1", absl::StrCat(job, " ends twice, begun ", generation, " times again"));
  }
}

void Promises::CheckJob(const std::string& name) {
  const v1::JobRecord& record = jobs_.at(name);
  const v1::Job& job = record.job();
  if (job.last_event_seq() != last_seq_[name]) {
    world_.Break("I5", absl::StrCat(name, " says that its last event is ", job.last_event_seq(),
                                    ", and it is ", last_seq_[name]));
  }
  const bool has_artifact = artifacts_.count(name) > 0;
  if (has_artifact != (job.state() == v1::Job::SUCCEEDED)) {
    world_.Break("I3",
                 absl::StrCat(name, " is ", v1::Job::State_Name(job.state()),
                              has_artifact ? " and has an artifact" : " without an artifact"));
  }
  if (IsTerminal(job.state())) {
    if (record.tasks_size() > 0) world_.Break("commit", absl::StrCat(name, " ended with tasks"));
    return;
  }
  for (const std::string& key : record.tasks()) {
    auto task = tasks_.find(key);
    const bool wants = task != tasks_.end() &&
                       std::find(task->second.jobs().begin(), task->second.jobs().end(), name) !=
                           task->second.jobs().end();
    if (!wants) {
      world_.Break("commit", absl::StrCat(name, " wants task ", key.substr(0, 12),
                                          ", which does not know of it"));
    }
  }
}

// A task's row is not written for one more job that wants it: the job's has the task.
void Promises::NoteJoined(const std::string& name) {
  const auto job = jobs_.find(name);
  if (job == jobs_.end()) return;
  for (const std::string& key : job->second.tasks()) {
    const auto task = tasks_.find(key);
    if (task == tasks_.end()) continue;
    const auto& jobs = task->second.jobs();
    if (std::find(jobs.begin(), jobs.end(), name) == jobs.end()) task->second.add_jobs(name);
  }
}

void Promises::CheckTask(const std::string& key) {
  auto task = tasks_.find(key);
  if (task == tasks_.end()) return;
  for (const std::string& name : task->second.jobs()) {
    auto job = jobs_.find(name);
    const bool wants = job != jobs_.end() &&
                       std::find(job->second.tasks().begin(), job->second.tasks().end(), key) !=
                           job->second.tasks().end();
    if (!wants) {
      world_.Break("commit", absl::StrCat("task ", key.substr(0, 12), " names ", name,
                                          ", which does not want it"));
    }
  }
}

void Promises::Committed(const std::vector<Write>& writes) {
  ++num_commits_;
  started_anew_.clear();
  completion_.Clear();
  std::set<std::string> touched_jobs, touched_tasks;
  for (const Write& write : writes) {
    if (write.check_only) continue;
    if (write.table == Table::kWorkers) started_anew_.insert(write.record.key);
    if (write.table == Table::kCache) {
      if (write.remove) cache_.erase(write.record.key);
      if (!write.remove) cache_.insert(write.record.key);
      if (write.remove) continue;
      completion_ = Parse<v1::CacheRecord>(write);
      CheckNamed(completion_, "the cache");
    }
  }
  for (const Write& write : writes) {
    const std::string& key = write.record.key;
    if (write.check_only) continue;
    if (write.table == Table::kTasks) {
      SawTask(write);
      touched_tasks.insert(key);
    } else if (write.table == Table::kJobs) {
      SawJob(write);
      touched_jobs.insert(key);
    } else if (write.table == Table::kEvents) {
      SawEvent(write);
      touched_jobs.insert(key.substr(0, key.rfind('/')));
    } else if (write.table == Table::kArtifacts && write.remove) {
      std::erase_if(artifacts_, [&](const auto& artifact) { return artifact.second == key; });
    } else if (write.table == Table::kArtifacts) {
      const v1::Artifact artifact = Parse<v1::Artifact>(write);
      if (!artifacts_.emplace(artifact.job(), key).second) {
        world_.Break("I3", absl::StrCat(artifact.job(), " gets a second artifact"));
      }
      int64_t bytes = 0;
      for (const v1::NamedBlob& file : artifact.files()) bytes += file.blob().size_bytes();
      if (bytes != artifact.total_bytes())
        world_.Break("I4", absl::StrCat(key, " is not its files"));
      CheckNamed(artifact, key);
      touched_jobs.insert(artifact.job());
    } else if (write.table == Table::kRequests) {
      if (!requests_.emplace(key, Parse<v1::RequestRecord>(write).resource()).second) {
        world_.Break("I2", absl::StrCat("request ", key, " acts twice"));
      }
    } else if (write.table == Table::kLeader && key == "term") {
      const auto row = rows_.Get(Table::kLeader, key);
      if (!row.ok() || row->version <= last_term_) world_.Break("term", "it does not rise");
      if (row.ok()) last_term_ = row->version;
    }
  }
  for (const std::string& name : touched_jobs) NoteJoined(name);
  for (const int64_t epoch : epochs_) last_epoch_ = std::max(last_epoch_, epoch);
  epochs_.clear();
  CheckQuotas();
  CheckTurns();
  for (const std::string& name : touched_jobs) {
    if (deleted_.count(name) > 0) {
      if (artifacts_.count(name) > 0)
        world_.Break("delete", absl::StrCat(name, " leaves an artifact"));
    } else if (jobs_.count(name) == 0) {
      world_.Break("commit", absl::StrCat(name, " has events and is no job"));
    } else {
      CheckJob(name);
    }
  }
  for (const std::string& key : touched_tasks) CheckTask(key);
}

void Promises::JobAcknowledged(const std::string& request_id, const std::string& job) {
  auto [known, is_new] = acknowledged_.emplace(request_id, job);
  if (!is_new && known->second != job) {
    world_.Break("I2", absl::StrCat("request ", request_id, " made ", known->second, " and ", job));
  }
  if (jobs_.count(job) == 0 && deleted_.count(job) == 0) {
    world_.Break("I1", absl::StrCat(job, " was acknowledged and is not there"));
  }
}

void Promises::CompletionAcknowledged(const std::string& task, int64_t epoch,
                                      const std::string& completion_id) {
  auto accepted = accepted_.find({task, epoch});
  if (accepted == accepted_.end() || accepted->second != completion_id) {
    world_.Break("I6", absl::StrCat("a completion of task ", task.substr(0, 12), " in epoch ",
                                    epoch, " is acknowledged and does not count"));
  }
}

void Promises::LeaseHeardOf(const std::string& task, int64_t epoch, int64_t term,
                            absl::Duration sent) {
  if (term != 0 && term != last_term_) return;
  auto heard = heard_of_.find({task, epoch});
  if (heard != heard_of_.end()) heard->second = std::max(heard->second, sent);
}

void Promises::CheckMemory(const DispatchState& state, Moment now) {
  const auto differs = [&](const std::string& what) {
    world_.Break("memory", absl::StrCat(what, " is not in memory as it is in the store"));
  };
  std::map<std::string, v1::JobRecord> active;
  for (const auto& [name, job] : jobs_) {
    if (!IsTerminal(job.job().state())) active[name] = job;
  }
  if (KeysOf(active) != KeysOf(state.jobs())) return differs("the set of jobs");
  if (KeysOf(tasks_) != KeysOf(state.tasks())) return differs("the set of tasks");
  DispatchState fresh(dispatch_);
  for (const auto& [id, worker] : state.workers()) fresh.Load(worker, now);
  for (const auto& [name, model] : state.models()) fresh.Load(model);
  for (const auto& [name, job] : active) {
    if (CanonicalBytes(job) != CanonicalBytes(state.jobs().at(name))) return differs(name);
    fresh.Load(job);
  }
  for (const auto& [key, task] : tasks_) {
    if (InOrder(task) != InOrder(state.tasks().at(key))) return differs(key);
    fresh.Load(task, now);
  }
  if (!SameCounts(fresh.counts().jobs, state.counts().jobs) ||
      !SameCounts(fresh.counts().leased, state.counts().leased) ||
      !SameCounts(fresh.counts().ready, state.counts().ready)) {
    differs("what is counted");
  }
  if (KeysOf(fresh.leases()) != KeysOf(state.leases())) differs("the set of leases");
  for (const auto& [id, worker] : state.workers()) {
    if (fresh.LeasesOf(id) != state.LeasesOf(id)) differs("a worker's set of leases");
  }
  if (fresh.refused() != state.refused()) differs("the set of refused tasks");
}

void Promises::CheckContent(const v1::Artifact& artifact) {
  for (const v1::NamedBlob& file : artifact.files()) {
    const BlobId id{file.blob().sha256(), file.blob().size_bytes()};
    if (is_damaged(id.sha256)) continue;
    const auto reader = blobs_.OpenRead(id);
    const auto content = reader.ok() ? (*reader)->Read(0, id.size_bytes) : reader.status();
    if (content.ok() && BlobIdOf(*content) == id) continue;
    world_.Break("I4", absl::StrCat(file.name(), " of ", artifact.name(), " is not what it was"));
  }
}

void Promises::CheckBlobs() {
  for (const auto& [key, task] : tasks_) CheckNamed(task, absl::StrCat("task ", key));
  for (const Table table : {Table::kCache, Table::kArtifacts, Table::kDatasets}) {
    ListQuery query;
    const auto rows = rows_.List(table, query);
    for (const Record& row : *rows) {
      if (table == Table::kCache) {
        v1::CacheRecord record;
        record.ParseFromString(row.value);
        CheckNamed(record, "the cache");
      } else if (table == Table::kArtifacts) {
        v1::Artifact record;
        record.ParseFromString(row.value);
        CheckNamed(record, row.key);
        CheckContent(record);
      } else {
        v1::Dataset record;
        record.ParseFromString(row.value);
        CheckNamed(record, row.key);
      }
    }
  }
}

bool Promises::all_ended() const {
  return std::all_of(acknowledged_.begin(), acknowledged_.end(), [&](const auto& entry) {
    if (deleted_.count(entry.second) > 0) return true;
    auto job = jobs_.find(entry.second);
    return job != jobs_.end() && IsTerminal(job->second.job().state());
  });
}

bool Promises::is_tidy() const {
  if (tasks_.empty()) return true;
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [](const auto& job) { return !IsTerminal(job.second.job().state()); });
}

void Promises::CheckEnd(bool must_succeed) {
  for (const auto& [request, name] : acknowledged_) {
    if (deleted_.count(name) > 0) continue;
    const v1::Job& job = jobs_.at(name).job();
    if (!IsTerminal(job.state())) {
      world_.Break("I1", absl::StrCat(name, " has not ended: ", v1::Job::State_Name(job.state()),
                                      ", ", job.queue_detail()));
    } else if (must_succeed && job.state() == v1::Job::FAILED &&
               job.failure().reason() != "CRASH_LOOP") {
      world_.Break("end", absl::StrCat(name,
                                       " failed though nothing went wrong that a job may fail "
                                       "for: ",
                                       job.failure().reason(), " ", job.failure().message()));
    }
  }
  if (!is_tidy()) {
    world_.Break("end", absl::StrCat("all jobs have ended, and ", tasks_.size(), " tasks stay"));
  }
  CheckBlobs();
}

}  // namespace lwq::simulation
