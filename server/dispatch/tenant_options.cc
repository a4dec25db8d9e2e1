#include "server/dispatch/tenant_options.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/store/tenant.h"

namespace lwq {
namespace {

constexpr double kMostWeight = 1e6;

absl::Status Invalid(absl::string_view text, absl::string_view what) {
  return Failure(reasons::kFlagInvalid,
                 absl::StrCat("tenant \"", text, "\": ", what,
                              "; it is NAME:weight=2:running=8:queued=100:bytes=10GiB, or * for "
                              "all that are not named"));
}

absl::Status Set(absl::string_view text, absl::string_view name, absl::string_view value,
                 TenantOptions& options) {
  if (name == "weight") {
    const bool is_good = absl::SimpleAtod(value, &options.weight) && options.weight > 0 &&
                         options.weight <= kMostWeight;
    return is_good ? absl::OkStatus() : Invalid(text, "a weight is above 0, at most a million");
  }
  if (name == "bytes") {
    LWQ_ASSIGN_OR_RETURN(options.max_bytes, ParseByteSize(value));
    return absl::OkStatus();
  }
  int* const count = name == "running"  ? &options.max_running_jobs
                     : name == "queued" ? &options.max_queued_jobs
                                        : nullptr;
  if (count == nullptr) return Invalid(text, absl::StrCat("there is no setting \"", name, "\""));
  const bool is_good = absl::SimpleAtoi(value, count) && *count > 0;
  return is_good ? absl::OkStatus() : Invalid(text, absl::StrCat(name, " is a number above 0"));
}

}  // namespace

const TenantOptions& OptionsOf(const TenantSettings& settings, const std::string& tenant) {
  static const auto* const standard = new TenantOptions;
  auto found = settings.find(tenant);
  if (found == settings.end()) found = settings.find(kEverybody);
  return found == settings.end() ? *standard : found->second;
}

absl::StatusOr<std::pair<std::string, TenantOptions>> ParseTenantOptions(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  std::pair<std::string, TenantOptions> tenant;
  tenant.first = std::string(parts[0]);
  bool is_name = !parts[0].empty() && parts[0].size() <= 63 && absl::ascii_islower(parts[0][0]);
  for (const char c : parts[0]) {
    is_name = is_name && (absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-');
  }
  if (!is_name && parts[0] != kEverybody) return Invalid(text, "it begins with no tenant's name");
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> setting =
        absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    LWQ_RETURN_IF_ERROR(Set(text, setting.first, setting.second, tenant.second));
  }
  return tenant;
}

}  // namespace lwq
