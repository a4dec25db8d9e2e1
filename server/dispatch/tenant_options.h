// What an operator sets of tenants: their shares of the workers and what they may have.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// 0 of a limit: none.
struct TenantOptions {
  double weight = 1;         // of its share, beside the weights of others that have work
  int max_running_jobs = 0;  // at work at a time; more of them wait
  int max_queued_jobs = 0;   // waiting; more of them are refused
  int64_t max_bytes = 0;     // that it has sent, and of artifacts
};

// By tenant; those of kEverybody ("*") are for all that are not named.
using TenantSettings = std::map<std::string, TenantOptions>;
const TenantOptions& OptionsOf(const TenantSettings& settings, const std::string& tenant);

// "acme:weight=2:running=8:queued=100:bytes=10GiB"; "*:..." of all others. INVALID_ARGUMENT
// "FLAG_INVALID".
absl::StatusOr<std::pair<std::string, TenantOptions>> ParseTenantOptions(absl::string_view text);

}  // namespace lwq
