// What a tenant may have: checked before it gets more. Failures name the tenant and the limit
// (QuotaFailure).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/dispatch/dispatch_state.h"
#include "server/service/scheduler.h"

namespace lwq {

// One more job that waits. RESOURCE_EXHAUSTED "QUOTA_EXCEEDED". In the transaction that adds it.
absl::Status CheckQueuedJobs(const Draft& draft, const std::string& tenant);
// So many bytes more.
absl::Status CheckBytes(const Scheduler& scheduler, const std::string& tenant, int64_t more);

}  // namespace lwq
