#include "server/service/collector.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/failpoint.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/call.h"
#include "server/service/deletion.h"
#include "server/service/record_writes.h"
#include "server/service/uploads.h"
#include "server/store/blob_refs.h"

namespace lwq {
namespace {

constexpr int kRemovalsACommit = 500;
constexpr int kBlobsAPage = 1000;
// The files of an artifact are soon put together again; who deletes one wants its space.
constexpr absl::Duration kKeepAssembled = absl::Hours(24);
// What happened to a job that ended so long ago is told by its last event alone, which has the job.
constexpr absl::Duration kKeepEvents = absl::Hours(7 * 24);

// A leader that hung in the middle of a collection notices after at most this that it leads no
// more.
constexpr absl::Duration kTermIsGood = absl::Seconds(1);

// Whether a collection may go on. Another leader on the same blobs may need what this one found
// that nobody does, and a server that is to end does not wait for the rest.
class DeletePermission {
 public:
  explicit DeletePermission(Scheduler* scheduler) : scheduler_(scheduler) {}
  // Before each step.
  absl::Status Check() {
    if (scheduler_->draining) return DrainingError();
    const bool is_good = scheduler_->clock().Steady() < confirmed_at_ + kTermIsGood;
    return is_good ? absl::OkStatus() : Confirm();
  }
  // By the store: a commit of nothing is refused to who is no longer the leader.
  absl::Status Confirm() {
    confirmed_at_ = scheduler_->clock().Steady();
    return scheduler_->store().Commit({});
  }

 private:
  Scheduler* const scheduler_;
  absl::Duration confirmed_at_ = -absl::InfiniteDuration();
};

// One pass over the records: which stay, and which blobs those need.
class Pass {
 public:
  Pass(Store* store, const Retention& retention, int64_t now_us, DeletePermission* permission)
      : store_(store), retention_(retention), now_us_(now_us), permission_(permission) {}

  absl::Status Look() {
    const auto stays = [](const Record&, const auto&) { return true; };
    // Tasks before all that may take over what they hold; jobs before their artifacts.
    LWQ_RETURN_IF_ERROR(
        Visit<v1::TaskRecord>(Table::kTasks, [&](const Record&, const v1::TaskRecord& task) {
          if (task.state() == v1::TaskRecord::LEASED) {
            oldest_lease_us_ = std::min(oldest_lease_us_, task.leased_us());
          }
          return true;
        }));
    LWQ_RETURN_IF_ERROR(Visit<v1::JobRecord>(Table::kJobs, [&](const Record&, const auto& job) {
      if (job.job().state() != v1::Job::SUCCEEDED) may_use_.insert(job.job().name());
      if (!IsTerminal(job.job().state())) return true;
      const int64_t ended_us = ToMicros(job.job().end_time());
      if (IsOver(ended_us, retention_.jobs)) return false;
      if (IsOver(ended_us, kKeepEvents)) quiet_jobs_[job.job().name()] = job.job().last_event_seq();
      return true;
    }));
    LWQ_RETURN_IF_ERROR(
        Visit<v1::CacheRecord>(Table::kCache, [&](const Record& row, const auto& result) {
          // One of a job that was submitted since the pass began is not known yet.
          const bool is_orphan = !result.only_job().empty() && row.order < now_us_ &&
                                 may_use_.count(result.only_job()) == 0;
          if (is_orphan) return false;
          const bool is_artifact = result.kind() == "assemble";
          return !IsOver(row.order, is_artifact ? std::min(retention_.cache, kKeepAssembled)
                                                : retention_.cache);
        }));
    LWQ_RETURN_IF_ERROR(
        Visit<v1::Artifact>(Table::kArtifacts, [&](const Record&, const auto& artifact) {
          return !gone(Table::kJobs, artifact.job()) &&
                 !IsOver(ToMicros(artifact.create_time()), retention_.artifacts);
        }));
    LWQ_RETURN_IF_ERROR(
        Visit<v1::Dataset>(Table::kDatasets, [&](const Record&, const v1::Dataset& dataset) {
          named_.emplace(TenantOf(dataset), dataset.blob().sha256());
          return true;
        }));
    LWQ_RETURN_IF_ERROR(Visit<v1::Model>(Table::kModels, stays));
    LWQ_RETURN_IF_ERROR(
        Visit<v1::UploadRecord>(Table::kUploads, [&](const Record& row, const auto& upload) {
          const bool is_named = named_.count({TenantOf(upload), upload.blob().sha256()}) > 0;
          return is_named || !IsOver(row.order, retention_.blob_grace + kUploadNoticed);
        }));
    return Visit<v1::RequestRecord>(Table::kRequests, [&](const Record& row, const auto&) {
      return !IsOver(row.order, retention_.requests);
    });
  }

  const std::vector<Record>& over(Table table) const { return over_[static_cast<size_t>(table)]; }
  // Jobs that ended long ago and stay: the number of the last event of each.
  const std::map<std::string, int64_t>& quiet_jobs() const { return quiet_jobs_; }
  // Since when the task that has run the longest does; the pass's own time when none does.
  int64_t oldest_lease_us() const { return oldest_lease_us_; }
  bool IsNeeded(const std::string& sha256) const { return needed_.count(sha256) > 0; }

 private:
  bool IsOver(int64_t since_us, absl::Duration kept) const {
    return absl::Microseconds(now_us_ - since_us) > kept;
  }
  bool gone(Table table, const std::string& key) const {
    return keys_over_.count({table, key}) > 0;
  }

  template <typename T, typename Stays>
  absl::Status Visit(Table table, Stays stays) {
    ListQuery query;
    while (true) {
      LWQ_RETURN_IF_ERROR(permission_->Check());
      LWQ_ASSIGN_OR_RETURN(std::vector<Record> rows, store_->List(table, query));
      for (Record& row : rows) {
        LWQ_ASSIGN_OR_RETURN(const T record, ParseRecord<T>(table, row));
        if (stays(row, record)) {
          // That a tenant sent it keeps no blob for longer than the grace period does.
          if (table == Table::kUploads) continue;
          ForEachBlobRef(record, [&](const v1::BlobRef& blob) { needed_.insert(blob.sha256()); });
          continue;
        }
        row.value.clear();
        keys_over_.emplace(table, row.key);
        over_[static_cast<size_t>(table)].push_back(row);
      }
      if (static_cast<int>(rows.size()) < query.limit) return absl::OkStatus();
      query.after_key = rows.back().key;
    }
  }

  Store* const store_;
  const Retention& retention_;
  const int64_t now_us_;
  DeletePermission* const permission_;
  int64_t oldest_lease_us_ = now_us_;
  std::unordered_set<std::string> needed_;  // by digest
  std::vector<Record> over_[kNumTables];    // past their time, without their values
  std::set<std::pair<Table, std::string>> keys_over_;
  std::map<std::string, int64_t> quiet_jobs_;
  std::set<std::string> may_use_;  // jobs that may yet ask for what they alone may have
  std::set<std::pair<std::string, std::string>> named_;  // tenants and the blobs of their datasets
};

// A job or an artifact that somebody deleted or took up again meanwhile is no error.
absl::Status Unless(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == reasons::kNotFound.name || reason == reasons::kStateConflict.name
             ? absl::OkStatus()
             : status;
}

// What goes besides blobs.
class Removal {
 public:
  Removal(Scheduler* scheduler, DeletePermission* permission)
      : scheduler_(*scheduler), store_(scheduler->store()), permission_(*permission) {}

  absl::Status Run(const Pass& pass) {
    for (const Record& job : pass.over(Table::kJobs)) {
      LWQ_RETURN_IF_ERROR(permission_.Check());
      LWQ_RETURN_IF_ERROR(Unless(DeleteJob(scheduler_, job.key)));
    }
    for (const Record& artifact : pass.over(Table::kArtifacts)) {
      LWQ_RETURN_IF_ERROR(permission_.Check());
      LWQ_RETURN_IF_ERROR(Unless(DeleteArtifact(scheduler_, artifact.key)));
    }
    LWQ_RETURN_IF_ERROR(CompactEvents(pass.quiet_jobs()));
    for (const Table table : {Table::kCache, Table::kRequests, Table::kUploads}) {
      LWQ_RETURN_IF_ERROR(Remove(table, pass.over(table)));
    }
    return absl::OkStatus();
  }

 private:
  // One that was used meanwhile stays.
  absl::Status Remove(Table table, const std::vector<Record>& rows) {
    for (size_t begin = 0; begin < rows.size(); begin += kRemovalsACommit) {
      LWQ_RETURN_IF_ERROR(permission_.Check());
      const size_t end = std::min(rows.size(), begin + kRemovalsACommit);
      std::vector<Write> writes;
      for (size_t i = begin; i < end; ++i) {
        Write& write = writes.emplace_back(
            Write{.table = table, .remove = true, .expected_version = rows[i].version});
        write.record.key = rows[i].key;
      }
      absl::Status removed = store_.Commit(writes);
      if (ReasonOf(removed) == reasons::kVersionConflict.name)
        continue;  // the next collection looks again
      LWQ_RETURN_IF_ERROR(removed);
      if (table != Table::kUploads) continue;
      for (size_t i = begin; i < end; ++i) {
        scheduler_.tenant_bytes().Add(rows[i].tenant, -UploadedBytes(rows[i]));
      }
    }
    return absl::OkStatus();
  }

  // All events of a job but its last.
  absl::Status Compact(const std::string& job, int64_t last_seq) {
    ListQuery query;
    query.key_prefix = EventPrefix(job);
    while (true) {
      LWQ_ASSIGN_OR_RETURN(std::vector<Record> rows, store_.List(Table::kEvents, query));
      const bool more = static_cast<int>(rows.size()) == query.limit;
      if (!rows.empty()) query.after_key = rows.back().key;
      std::erase_if(rows, [&](const Record& row) { return row.key >= EventKey(job, last_seq); });
      LWQ_RETURN_IF_ERROR(Remove(Table::kEvents, rows));
      if (!more) return absl::OkStatus();
    }
  }

  // Those that were compacted before have no event before the last.
  absl::Status CompactEvents(const std::map<std::string, int64_t>& jobs) {
    std::map<std::string, std::string> job_of;  // by the key of its last event but one
    for (const auto& [job, last_seq] : jobs) job_of[EventKey(job, last_seq - 1)] = job;
    std::vector<std::string> keys;
    for (auto it = job_of.begin(); it != job_of.end();) {
      keys.push_back((it++)->first);
      if (keys.size() < kRemovalsACommit && it != job_of.end()) continue;
      LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store_.GetMany(Table::kEvents, keys));
      for (const Record& row : rows) {
        const std::string& job = job_of.at(row.key);
        LWQ_RETURN_IF_ERROR(Compact(job, jobs.at(job)));
      }
      keys.clear();
    }
    return absl::OkStatus();
  }

  Scheduler& scheduler_;
  Store& store_;
  DeletePermission& permission_;
};

// Deletes what no record needs, but for what somebody wrote or used less than the grace period
// before `since`, or later.
class Sweep {
 public:
  Sweep(CollectableBlobStore* blobs, const Pass* pass, absl::Duration grace, Moment since,
        bool dry_run, DeletePermission* permission)
      : blobs_(*blobs),
        pass_(*pass),
        kept_if_written_after_(absl::FromUnixMicros(since.wall_us) - grace),
        since_(absl::Microseconds(since.steady_us)),
        dry_run_(dry_run),
        permission_(*permission) {}

  absl::Status Run(v1::CollectGarbageResponse& result) {
    std::string after;
    while (true) {
      LWQ_RETURN_IF_ERROR(permission_.Check());
      LWQ_ASSIGN_OR_RETURN(const std::vector<BlobStat> page, blobs_.List(after, kBlobsAPage));
      LWQ_RETURN_IF_ERROR(permission_.Confirm());
      for (const BlobStat& blob : page) LWQ_RETURN_IF_ERROR(Look(blob, result));
      if (static_cast<int>(page.size()) < kBlobsAPage) return absl::OkStatus();
      after = page.back().id.sha256;
    }
  }

 private:
  absl::Status Look(const BlobStat& blob, v1::CollectGarbageResponse& result) {
    const int64_t size = blob.id.size_bytes;
    if (pass_.IsNeeded(blob.id.sha256)) {
      result.set_kept_blobs(result.kept_blobs() + 1);
      result.set_kept_blob_bytes(result.kept_blob_bytes() + size);
      return absl::OkStatus();
    }
    bool stays = blob.written > kept_if_written_after_ || blobs_.InUse(blob.id, since_);
    if (!stays && !dry_run_) {
      LWQ_RETURN_IF_ERROR(permission_.Check());
      Failpoint("collect.before_delete");
      absl::Status deleted = blobs_.Delete(blob.id, since_);
      Failpoint("collect.after_delete");
      stays = HasReason(deleted, reasons::kBlobInUse);
      if (!stays) LWQ_RETURN_IF_ERROR(deleted);
    }
    if (stays) {
      result.set_grace_blobs(result.grace_blobs() + 1);
      result.set_grace_blob_bytes(result.grace_blob_bytes() + size);
    } else {
      result.set_blobs(result.blobs() + 1);
      result.set_blob_bytes(result.blob_bytes() + size);
    }
    return absl::OkStatus();
  }

  CollectableBlobStore& blobs_;
  const Pass& pass_;
  const absl::Time kept_if_written_after_;
  const absl::Duration since_;
  const bool dry_run_;
  DeletePermission& permission_;
};

}  // namespace

absl::StatusOr<v1::CollectGarbageResponse> Collector::Collect(bool dry_run) {
  if (running_.exchange(true)) {
    return Failure(reasons::kCollectionRunning, "a collection is under way in this server");
  }
  absl::StatusOr<v1::CollectGarbageResponse> result = CollectAlone(dry_run);
  running_ = false;
  return result;
}

absl::StatusOr<v1::CollectGarbageResponse> Collector::CollectAlone(bool dry_run) {
  const Moment now = scheduler_->Now();
  DeletePermission permission(scheduler_);
  Pass pass(&scheduler_->store(), retention_, now.wall_us, &permission);
  LWQ_RETURN_IF_ERROR(pass.Look());
  v1::CollectGarbageResponse result;
  const auto count = [&](Table table) { return static_cast<int64_t>(pass.over(table).size()); };
  result.set_jobs(count(Table::kJobs));
  result.set_artifacts(count(Table::kArtifacts));
  result.set_cache_entries(count(Table::kCache));
  result.set_requests(count(Table::kRequests));
  if (!dry_run) LWQ_RETURN_IF_ERROR(Removal(scheduler_, &permission).Run(pass));
  // A task stores blobs as it goes, and its record names them when it ends.
  const int64_t running_us = now.wall_us - pass.oldest_lease_us();
  const Moment since = {.wall_us = now.wall_us - running_us,
                        .steady_us = now.steady_us - running_us};
  blobs_->ForgetUses(absl::Microseconds(since.steady_us));
  Sweep sweep(blobs_, &pass, retention_.blob_grace, since, dry_run, &permission);
  LWQ_RETURN_IF_ERROR(sweep.Run(result));
  spdlog::info("{}: {} jobs, {} artifacts, {} results, {} blobs of {} bytes",
               dry_run ? "collection would delete" : "collection deleted", result.jobs(),
               result.artifacts(), result.cache_entries(), result.blobs(), result.blob_bytes());
  if (!dry_run) scheduler_->metrics().Collected(result);
  return result;
}

}  // namespace lwq
