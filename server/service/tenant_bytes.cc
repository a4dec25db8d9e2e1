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

int64_t TenantBytes::Of(const std::string& tenant) const {
  MutexLock lock(&mu_);
  const auto found = bytes_.find(tenant);
  return found == bytes_.end() ? 0 : found->second;
}

std::map<std::string, int64_t> TenantBytes::All() const {
  MutexLock lock(&mu_);
  return bytes_;
}

}  // namespace lwq
