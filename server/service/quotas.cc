#include "server/service/quotas.h"

#include "absl/strings/str_cat.h"
#include "base/failure_details.h"
#include "base/reasons.h"

namespace lwq {
namespace {

// A dense model's inventory has some 20 to 200 KB, the largest mixture's of experts 3 MB; in memory
// it takes some twenty times that.
constexpr int kMostModels = 1000;
constexpr int64_t kMostInventoryBytes = 64 << 20;

absl::Status Exceeded(const std::string& tenant, const std::string& how) {
  absl::Status status = Failure(reasons::kQuotaExceeded, absl::StrCat("tenant ", tenant, " ", how));
  AddQuotaViolation(absl::StrCat("tenants/", tenant), how, &status);
  return status;
}

absl::Status NoRoom(const std::string& tenant, int64_t used, int64_t more, int64_t most) {
  return Exceeded(tenant, absl::StrCat("has ", used,
                                       " bytes of artifacts and of uploads, under way or done, "
                                       "of the ",
                                       most, " that it may have, and ", more,
                                       " more do not fit: deleted artifacts make room"));
}

}  // namespace

absl::Status CheckQueuedJobs(const Draft& draft, const std::string& tenant) {
  const int most = OptionsOf(draft.state().options().tenants, tenant).max_queued_jobs;
  const int waiting = draft.state().CountsOf(tenant).queued;
  if (most == 0 || waiting < most) return absl::OkStatus();
  return Exceeded(tenant, absl::StrCat("has ", waiting, " jobs waiting, at most ", most));
}

absl::Status CheckModels(const Draft& draft, const std::string& tenant) {
  int64_t bytes = 0;
  int models = 0;
  for (const auto& [name, model] : draft.state().models()) {
    if (TenantOf(model) != tenant) continue;
    ++models;
    bytes += static_cast<int64_t>(model.manifest().ByteSizeLong());
  }
  if (models < kMostModels && bytes < kMostInventoryBytes) return absl::OkStatus();
  return Exceeded(
      tenant, absl::StrCat("has ", models, " models, of ", bytes, " bytes of inventories: at most ",
                           kMostModels, " and ", kMostInventoryBytes));
}

absl::Status CheckBytes(const Scheduler& scheduler, const std::string& tenant, int64_t more) {
  const int64_t most = OptionsOf(scheduler.options().tenants, tenant).max_bytes;
  const int64_t used = scheduler.tenant_bytes().Of(tenant);
  if (most == 0 || used + more <= most) return absl::OkStatus();
  return NoRoom(tenant, used, more, most);
}

absl::StatusOr<std::unique_ptr<UploadReservation>> UploadReservation::Make(
    Scheduler& scheduler, const std::string& tenant, const BlobId& id) {
  const int64_t most = OptionsOf(scheduler.options().tenants, tenant).max_bytes;
  if (!scheduler.tenant_bytes().Reserve(tenant, id.sha256, id.size_bytes, most)) {
    return NoRoom(tenant, scheduler.tenant_bytes().Of(tenant), id.size_bytes, most);
  }
  return std::unique_ptr<UploadReservation>(new UploadReservation(&scheduler, tenant, id));
}

UploadReservation::~UploadReservation() {
  if (!settled_) scheduler_->tenant_bytes().Release(tenant_, id_.sha256, id_.size_bytes, left_);
}

// What is reserved is counted already.
absl::Status UploadReservation::Check() const { return CheckBytes(*scheduler_, tenant_, 0); }

void UploadReservation::Settle() {
  settled_ = true;
  scheduler_->tenant_bytes().Settle(tenant_, id_.sha256, id_.size_bytes);
}

}  // namespace lwq
