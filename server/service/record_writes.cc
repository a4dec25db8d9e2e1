#include "server/service/record_writes.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lwq {
namespace {

template <typename T>
constexpr bool kHasTenant = std::is_same_v<T, v1::Model> || std::is_same_v<T, v1::TaskRecord>;

template <typename T>
void AddEdits(Table table, const Edits<T>& edits, std::vector<Write>& writes) {
  for (const auto& [key, record] : edits) {
    Write& write = writes.emplace_back();
    write.table = table;
    write.record.key = key;
    write.remove = !record.has_value();
    if (!record) continue;
    if constexpr (kHasTenant<T>) write.record.tenant = TenantOf(*record);
    record->SerializeToString(&write.record.value);
  }
}

}  // namespace

std::string EventPrefix(const std::string& job) { return absl::StrCat(job, "/"); }

std::string EventKey(const std::string& job, int64_t seq) {
  return absl::StrFormat("%s/%012d", job, seq);
}

int64_t ToMicros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}

std::vector<Write> ToWrites(const Changes& changes) {
  std::vector<Write> writes;
  for (const auto& [name, job] : changes.jobs) {
    if (!job) continue;
    Write& write = writes.emplace_back();
    write.table = Table::kJobs;
    write.record.key = name;
    write.record.state = job->job().state();
    write.record.tag = job->job().spec().quantize().model();
    write.record.order = ToMicros(job->job().create_time());
    write.record.tenant = TenantOf(job->job());
    auto version = changes.job_versions.find(name);
    if (version != changes.job_versions.end()) write.expected_version = version->second;
    job->SerializeToString(&write.record.value);
  }
  AddEdits(Table::kTasks, changes.tasks, writes);
  AddEdits(Table::kWorkers, changes.workers, writes);
  AddEdits(Table::kModels, changes.models, writes);
  for (const auto& [job, event] : changes.events) {
    Write& write = writes.emplace_back();
    write.table = Table::kEvents;
    write.record.key = EventKey(job, event.seq());
    write.expected_version = 0;  // a number is given once
    event.SerializeToString(&write.record.value);
  }
  for (const v1::CacheRecord& entry : changes.cache_puts) {
    Write& write = writes.emplace_back();
    write.table = Table::kCache;
    write.record.key = entry.key();
    write.record.order = entry.created_us();
    entry.SerializeToString(&write.record.value);
  }
  for (const v1::Artifact& artifact : changes.artifacts) {
    Write& write = writes.emplace_back();
    write.table = Table::kArtifacts;
    write.record.key = artifact.name();
    write.record.order = ToMicros(artifact.create_time());
    write.record.tenant = TenantOf(artifact);
    write.expected_version = 0;  // a job has one artifact
    artifact.SerializeToString(&write.record.value);
  }
  for (const auto& [id, request] : changes.requests) {
    Write& write = writes.emplace_back();
    write.table = Table::kRequests;
    write.record.key = id;
    write.record.order = request.created_us();
    write.expected_version = 0;  // a request makes one job
    request.SerializeToString(&write.record.value);
  }
  if (changes.server) {
    Write& write = writes.emplace_back();
    write.table = Table::kServer;
    write.record.key = "server";
    changes.server->SerializeToString(&write.record.value);
  }
  return writes;
}

}  // namespace lwq
