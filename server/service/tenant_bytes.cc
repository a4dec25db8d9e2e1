#include "server/service/tenant_bytes.h"

#include <utility>

#include "base/status_macros.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "server/service/record_writes.h"

namespace lwq {
namespace {

int64_t SizeOf(const v1::Artifact& artifact) { return artifact.total_bytes(); }
int64_t SizeOf(const v1::UploadRecord& upload) { return upload.blob().size_bytes(); }

template <typename T>
absl::Status Count(Store& store, Table table, std::map<std::string, int64_t>& bytes) {
  ListQuery query;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.List(table, query));
    for (const Record& row : rows) {
      LWQ_ASSIGN_OR_RETURN(const T record, ParseRecord<T>(table, row));
      bytes[TenantOf(record)] += SizeOf(record);
    }
    if (static_cast<int>(rows.size()) < query.limit) return absl::OkStatus();
    query.after_key = rows.back().key;
  }
}

}  // namespace

absl::Status TenantBytes::Load(Store& store) {
  std::map<std::string, int64_t> bytes;
  LWQ_RETURN_IF_ERROR(Count<v1::Artifact>(store, Table::kArtifacts, bytes));
  LWQ_RETURN_IF_ERROR(Count<v1::UploadRecord>(store, Table::kUploads, bytes));
  MutexLock lock(&mu_);
  bytes_ = std::move(bytes);
  return absl::OkStatus();
}

void TenantBytes::Add(const std::string& tenant, int64_t bytes) {
  MutexLock lock(&mu_);
  bytes_[tenant] += bytes;
}

void TenantBytes::SetUnfinished(const std::vector<UploadStat>& uploads) {
  MutexLock lock(&mu_);
  std::map<Key, Upload> known;
  for (const UploadStat& upload : uploads) {
    if (!upload.owner.empty()) known[{upload.owner, upload.sha256}].left_bytes = upload.bytes;
  }
  for (const auto& [key, upload] : uploads_) {
    if (upload.num_open > 0) known[key] = upload;  // what it leaves is not known yet
  }
  uploads_ = std::move(known);
  unfinished_.clear();
  for (const auto& [key, upload] : uploads_) unfinished_[key.first] += upload.counted();
}

bool TenantBytes::Reserve(const std::string& tenant, const std::string& sha256, int64_t bytes,
                          int64_t most) {
  MutexLock lock(&mu_);
  const auto known = uploads_.find({tenant, sha256});
  const int64_t left =
      known == uploads_.end() || known->second.num_open > 0 ? 0 : known->second.left_bytes;
  if (most > 0 && Sum(tenant) - left + bytes > most) return false;
  Upload& upload = uploads_[{tenant, sha256}];
  ++upload.num_open;
  upload.open_bytes += bytes;
  unfinished_[tenant] += bytes - left;
  return true;
}

void TenantBytes::Settle(const std::string& tenant, const std::string& sha256, int64_t bytes) {
  MutexLock lock(&mu_);
  End({tenant, sha256}, bytes, 0);
  bytes_[tenant] += bytes;
}

void TenantBytes::Release(const std::string& tenant, const std::string& sha256, int64_t bytes,
                          std::optional<int64_t> left) {
  MutexLock lock(&mu_);
  End({tenant, sha256}, bytes, left);
}

void TenantBytes::End(const Key& key, int64_t bytes, std::optional<int64_t> left) {
  Upload& upload = uploads_[key];
  const int64_t before = upload.counted();
  --upload.num_open;
  upload.open_bytes -= bytes;
  if (left) upload.left_bytes = *left;
  unfinished_[key.first] += upload.counted() - before;
  if (upload.num_open == 0 && upload.left_bytes == 0) uploads_.erase(key);
}

int64_t TenantBytes::Sum(const std::string& tenant) const {
  int64_t sum = 0;
  for (const auto* bytes : {&bytes_, &unfinished_}) {
    const auto found = bytes->find(tenant);
    if (found != bytes->end()) sum += found->second;
  }
  return sum;
}

int64_t TenantBytes::Of(const std::string& tenant) const {
  MutexLock lock(&mu_);
  return Sum(tenant);
}

std::map<std::string, int64_t> TenantBytes::All() const {
  MutexLock lock(&mu_);
  std::map<std::string, int64_t> all = bytes_;
  for (const auto& [tenant, bytes] : unfinished_) all[tenant] += bytes;
  return all;
}

}  // namespace lwq
