#include "server/service/quotas.h"

#include "absl/strings/str_cat.h"
#include "base/failure_details.h"
#include "base/reasons.h"

namespace lwq {
namespace {

absl::Status Exceeded(const std::string& tenant, const std::string& how) {
  absl::Status status = Failure(reasons::kQuotaExceeded, absl::StrCat("tenant ", tenant, " ", how));
  AddQuotaViolation(absl::StrCat("tenants/", tenant), how, &status);
  return status;
}

}  // namespace

absl::Status CheckQueuedJobs(const Draft& draft, const std::string& tenant) {
  const int most = OptionsOf(draft.state().options().tenants, tenant).max_queued_jobs;
  const int waiting = draft.state().CountsOf(tenant).queued;
  if (most == 0 || waiting < most) return absl::OkStatus();
  return Exceeded(tenant, absl::StrCat("has ", waiting, " jobs waiting, at most ", most));
}

absl::Status CheckBytes(const Scheduler& scheduler, const std::string& tenant, int64_t more) {
  const int64_t most = OptionsOf(scheduler.options().tenants, tenant).max_bytes;
  const int64_t used = scheduler.tenant_bytes().Of(tenant);
  if (most == 0 || used + more <= most) return absl::OkStatus();
  return Exceeded(tenant, absl::StrCat("has ", used, " bytes of uploads and artifacts stored, and ",
                                       more, " more are over its ", most));
}

}  // namespace lwq
