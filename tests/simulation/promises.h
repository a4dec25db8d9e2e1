// What the service promises, checked while a simulation runs: at every commit, by all that is in
// the store and all that callers were told. The numbers are those of the promises' list (I1 to
// I10).
//
//   I1  a job that was acknowledged ends, once for each time that it was begun
//   I2  a request id makes one job
//   I3  a job has an artifact when it has succeeded, and else none
//   I4  an artifact names whole blobs
//   I5  a job's events are numbered without gaps, in the store and for who watches
//   I6  epochs rise, and each has at most one completion that counts
//   I7  what is done is not handed out again, unless what it left was lost
//   I8  a lease has one holder, who keeps it for as long as it is heard of
//   I9  a worker is handed no more than it asked for, and nothing that it cannot run; a tenant has
//       no more jobs at work than its quota says
//   I10 no row names a blob that is not there
//   I11 no tenant starves: while it has a task to hand out, others get no more of the workers than
//   a
//       few tasks' time
//   memory  what the server holds in memory is what the store holds
//   wake-up nobody waits beside a task that could be had, or for an event that is there
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "proto/lwq/v1/artifact_service.pb.h"
#include "server/blob/memory_blob_store.h"
#include "server/dispatch/dispatch_state.h"
#include "server/store/store.h"
#include "tests/simulation/world.h"

namespace lwq::simulation {

class Promises {
 public:
  // All outlive it.
  Promises(World* world, Store* rows, MemoryBlobStore* blobs, const DispatchOptions* dispatch)
      : world_(*world), rows_(*rows), blobs_(*blobs), dispatch_(*dispatch) {}

  // After each commit that the store has taken, by whichever server.
  void Committed(const std::vector<Write>& writes);
  // The medium lost or changed a blob, by a draw.
  void Damaged(const std::string& sha256) { damaged_.insert(sha256); }
  bool is_damaged(const std::string& sha256) const { return damaged_.count(sha256) > 0; }

  // A client will ask for it.
  void DeletionAsked(const std::string& job) { to_delete_.insert(job); }

  // What callers were told.
  void JobAcknowledged(const std::string& request_id, const std::string& job);
  void CompletionAcknowledged(const std::string& task, int64_t epoch,
                              const std::string& completion_id);
  // A heartbeat sent at `sent` was answered with CONTINUE by the leader of `term`, 0 where there is
  // one server. One that was replaced and has not noticed yet promises nothing: its successor gives
  // each lease its time from when it began.
  void LeaseHeardOf(const std::string& task, int64_t epoch, int64_t term, absl::Duration sent);

  // What a leader holds in memory, when nothing is under way.
  void CheckMemory(const DispatchState& state, Moment now);
  void CheckBlobs();
  // Once nothing more is to come. `must_succeed`: no fault was such that a job may fail for it.
  void CheckEnd(bool must_succeed);

  const std::map<std::string, v1::JobRecord>& jobs() const { return jobs_; }
  bool all_ended() const;
  // No task stays when all jobs have ended. One that a worker has may for a while: until the worker
  // reports, or its lease runs out.
  bool is_tidy() const;
  int64_t num_commits() const { return num_commits_; }
  int64_t num_completions() const { return static_cast<int64_t>(accepted_.size()); }
  int64_t num_artifacts() const { return static_cast<int64_t>(artifacts_.size()); }

 private:
  void SawJob(const Write& write);
  void SawTask(const Write& write);
  void SawEvent(const Write& write);
  void SawGrant(const v1::TaskRecord& task);
  void SawDone(const v1::TaskRecord& before, const v1::TaskRecord& task);
  // What one commit leaves, as a whole.
  void CheckJob(const std::string& name);
  void NoteJoined(const std::string& job);
  void CheckTask(const std::string& key);
  void CheckQuotas();
  void LeaseEnds(const v1::TaskRecord& task);
  // Since when each tenant waits for its turn, and whether others have had too much meanwhile.
  void CheckTurns();
  void CheckContent(const v1::Artifact& artifact);
  void CheckNamed(const google::protobuf::Message& record, const std::string& where);

  World& world_;
  Store& rows_;
  MemoryBlobStore& blobs_;
  const DispatchOptions& dispatch_;
  int64_t num_commits_ = 0;

  std::map<std::string, v1::JobRecord> jobs_;
  std::map<std::string, v1::TaskRecord> tasks_;
  std::map<std::string, std::string> artifacts_;    // job by name
  std::set<std::string> cache_;                     // keys
  std::map<std::string, int64_t> last_seq_;         // by job
  std::map<std::string, std::string> requests_;     // resource by id
  std::map<std::string, std::map<int, int>> ends_;  // how often a job ended, by generation

  std::map<std::string, std::string> acknowledged_;                     // job by request id
  std::map<std::pair<std::string, int64_t>, std::string> accepted_;     // completion id
  std::map<std::string, v1::TaskOutput> done_;                          // by task
  std::map<std::pair<std::string, int64_t>, absl::Duration> heard_of_;  // leases
  std::set<std::string> damaged_;
  std::set<std::string> to_delete_, deleted_;  // jobs
  v1::CacheRecord completion_;          // the last that the commit at hand puts into the cache
  std::set<std::string> started_anew_;  // workers that the commit at hand is about
  int64_t last_epoch_ = 0;              // before the commit at hand
  std::set<int64_t> epochs_;            // handed out in it
  int64_t last_term_ = 0;

  // A tenant that has a task to hand out.
  struct Turn {
    absl::Duration since;   // it waits
    absl::Duration others;  // had of the workers, by leases that began and ended since
  };
  std::map<std::string, Turn> turns_;            // by tenant
  std::map<std::string, absl::Duration> began_;  // leases, by task
  absl::Duration longest_lease_ = absl::ZeroDuration();
  std::set<std::string> workers_;  // that were handed a task
};

// Every blob that a record names, anywhere in it.
std::vector<v1::BlobRef> BlobsOf(const google::protobuf::Message& record);

}  // namespace lwq::simulation
