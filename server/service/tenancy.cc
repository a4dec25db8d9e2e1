#include "server/service/tenancy.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/dispatch/job_graph.h"
#include "server/service/record_writes.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

absl::Status NotThere(absl::string_view kind, const std::string& name) {
  return Failure(reasons::kNotFound, absl::StrCat("no ", kind, " ", name));
}

// What was found, unless it is another tenant's.
template <typename T>
absl::StatusOr<T> IfSeen(const Caller& caller, absl::string_view kind, const std::string& name,
                         absl::StatusOr<T> found) {
  if (found.ok() && !MaySee(caller, TenantOf(*found))) return NotThere(kind, name);
  return found;
}

}  // namespace

bool MaySee(const Caller& caller, const std::string& tenant) {
  return caller.sees_all() || tenant == caller.tenant || tenant == kEverybody;
}

absl::StatusOr<v1::JobRecord> SeenJob(const Scheduler& scheduler, const Caller& caller,
                                      const std::string& name) {
  LWQ_RETURN_IF_ERROR(CheckName(name, "jobs"));
  LWQ_ASSIGN_OR_RETURN(v1::JobRecord record, scheduler.GetJob(name));
  if (!MaySee(caller, TenantOf(record.job()))) return NotThere("job", name);
  return record;
}

absl::Status CheckJobSeen(const Scheduler& scheduler, const Caller& caller,
                          const std::string& name) {
  LWQ_RETURN_IF_ERROR(CheckName(name, "jobs"));
  if (caller.sees_all()) return absl::OkStatus();
  std::string tenant;
  scheduler.View([&](const DispatchState& state) {
    const auto job = state.jobs().find(name);
    if (job != state.jobs().end()) tenant = TenantOf(job->second.job());
  });
  if (tenant.empty()) {
    LWQ_ASSIGN_OR_RETURN(const Record row, scheduler.GetJobRow(name));
    tenant = row.tenant;
  }
  return MaySee(caller, tenant) ? absl::OkStatus() : NotThere("job", name);
}

absl::StatusOr<v1::Model> SeenModel(const Scheduler& scheduler, const Caller& caller,
                                    const std::string& name) {
  return IfSeen(caller, "model", name, scheduler.GetModel(name));
}

absl::StatusOr<v1::Dataset> SeenDataset(const Scheduler& scheduler, const Caller& caller,
                                        const std::string& name) {
  LWQ_RETURN_IF_ERROR(CheckName(name, "datasets"));
  return IfSeen(caller, "dataset", name, scheduler.GetDataset(name));
}

absl::StatusOr<v1::Artifact> SeenArtifact(const Scheduler& scheduler, const Caller& caller,
                                          const std::string& name) {
  LWQ_RETURN_IF_ERROR(CheckName(name, "artifacts"));
  absl::StatusOr<Record> row = scheduler.store().Get(Table::kArtifacts, name);
  if (absl::IsNotFound(row.status())) return NotThere("artifact", name);
  LWQ_RETURN_IF_ERROR(row.status());
  return IfSeen(caller, "artifact", name, ParseRecord<v1::Artifact>(Table::kArtifacts, *row));
}

absl::Status CheckUsable(const Scheduler& scheduler, const std::string& tenant,
                         const v1::JobSpec& spec) {
  const Caller owner = {.role = kClient, .tenant = tenant};
  if (spec.has_quantize()) {
    LWQ_RETURN_IF_ERROR(SeenModel(scheduler, owner, spec.quantize().model()).status());
  }
  for (const std::string& name : DatasetsOf(spec)) {
    LWQ_RETURN_IF_ERROR(IfSeen(owner, "dataset", name, scheduler.GetDataset(name)).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TenantsToList(const Caller& caller,
                                                       const std::string& of_tenant, bool all) {
  if (all) {
    if (caller.sees_all()) return std::vector<std::string>();
    return Failure(reasons::kRoleRequired, "all tenants' resources are listed for operators");
  }
  const std::string tenant = of_tenant.empty() ? caller.tenant : of_tenant;
  if (!MaySee(caller, tenant)) return NotThere("tenant", tenant);
  return std::vector<std::string>{tenant};
}

}  // namespace lwq
