#include "server/service/deletion.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/record_writes.h"

namespace lwq {
namespace {

Write Removal(Table table, const Record& row) {
  Write write{.table = table, .remove = true, .expected_version = row.version};
  write.record.key = row.key;
  return write;
}

// Every event of a job: its watchers find the job gone.
absl::Status AddEvents(Store& store, const std::string& job, std::vector<Write>& writes) {
  ListQuery query;
  query.key_prefix = EventPrefix(job);
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.List(Table::kEvents, query));
    for (const Record& row : rows) writes.push_back(Removal(Table::kEvents, row));
    if (static_cast<int>(rows.size()) < query.limit) return absl::OkStatus();
    query.after_key = rows.back().key;
  }
}

// Of an artifact that may be gone; its size.
absl::StatusOr<int64_t> AddArtifact(Store& store, const std::string& name,
                                    std::vector<Write>& writes) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.GetMany(Table::kArtifacts, {name}));
  if (rows.empty()) return 0;
  LWQ_ASSIGN_OR_RETURN(const auto artifact,
                       ParseRecord<v1::Artifact>(Table::kArtifacts, rows.front()));
  writes.push_back(Removal(Table::kArtifacts, rows.front()));
  return artifact.total_bytes();
}

// What is decided by rows that another changes meanwhile is decided anew.
absl::Status Decide(const std::function<absl::Status()>& decide) {
  absl::Status status;
  for (int i = 0; i < 10; ++i) {
    status = decide();
    if (ReasonOf(status) != reasons::kVersionConflict.name) break;
  }
  return status;
}

}  // namespace

absl::Status DeleteJob(Scheduler& scheduler, const std::string& name, const RequestMark& mark) {
  Store& store = scheduler.store();
  return Decide([&]() -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const Record row, scheduler.GetJobRow(name));
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord record, ParseRecord<v1::JobRecord>(Table::kJobs, row));
    if (!IsTerminal(record.job().state())) {
      return Failure(
          reasons::kStateConflict,
          absl::StrCat(name, " is ", v1::Job::State_Name(record.job().state()),
                       record.job().state() == v1::Job::CANCELLING
                           ? "; delete it when it has ended, which lwqctl watch waits for"
                           : "; cancel it, then delete it"));
    }
    std::vector<Write> writes = RequestWrites(mark, name, scheduler.Now());
    writes.push_back(Removal(Table::kJobs, row));
    LWQ_RETURN_IF_ERROR(AddEvents(store, name, writes));
    int64_t bytes = 0;
    if (!record.job().artifact().empty()) {
      LWQ_ASSIGN_OR_RETURN(bytes, AddArtifact(store, record.job().artifact(), writes));
    }
    LWQ_RETURN_IF_ERROR(store.Commit(writes));
    scheduler.tenant_bytes().Add(TenantOf(record.job()), -bytes);
    scheduler.hints().Notify(name);
    return absl::OkStatus();
  });
}

absl::Status DeleteArtifact(Scheduler& scheduler, const std::string& name,
                            const RequestMark& mark) {
  Store& store = scheduler.store();
  return Decide([&]() -> absl::Status {
    absl::StatusOr<Record> row = store.Get(Table::kArtifacts, name);
    if (absl::IsNotFound(row.status())) {
      return Failure(reasons::kNotFound, absl::StrCat("no ", name));
    }
    LWQ_RETURN_IF_ERROR(row.status());
    LWQ_ASSIGN_OR_RETURN(const v1::Artifact artifact,
                         ParseRecord<v1::Artifact>(Table::kArtifacts, *row));
    std::vector<Write> writes = RequestWrites(mark, name, scheduler.Now());
    writes.push_back(Removal(Table::kArtifacts, *row));
    LWQ_ASSIGN_OR_RETURN(std::vector<Record> jobs, store.GetMany(Table::kJobs, {artifact.job()}));
    for (Record& job : jobs) {
      LWQ_ASSIGN_OR_RETURN(v1::JobRecord record, ParseRecord<v1::JobRecord>(Table::kJobs, job));
      if (record.job().artifact() != name) continue;
      record.mutable_job()->clear_artifact();
      record.SerializeToString(&job.value);
      writes.push_back({.table = Table::kJobs, .record = job, .expected_version = job.version});
    }
    LWQ_RETURN_IF_ERROR(store.Commit(writes));
    scheduler.tenant_bytes().Add(TenantOf(artifact), -artifact.total_bytes());
    return absl::OkStatus();
  });
}

}  // namespace lwq
