#include "server/service/caller_limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

bool IsUpload(absl::string_view method) { return method == "WriteBlob"; }

absl::Status TooMuch(const Caller& caller, int number, absl::string_view what) {
  return Failure(reasons::kQuotaExceeded,
                 absl::StrCat(caller.name, " has ", number, " ", what, " open, the most it may"));
}

}  // namespace

absl::Status CallerLimits::Enter(const Caller& caller, absl::string_view method) {
  if (caller.role == kWorker) return absl::OkStatus();
  MutexLock lock(&mu_);
  Use& use = uses_[caller.name];
  if (use.open_calls >= options_.open_calls) return TooMuch(caller, use.open_calls, "calls");
  if (IsUpload(method) && use.uploads >= options_.uploads) {
    return TooMuch(caller, use.uploads, "uploads");
  }
  LWQ_RETURN_IF_ERROR(CountCall(caller, use));
  ++use.open_calls;
  if (IsUpload(method)) ++use.uploads;
  return absl::OkStatus();
}

absl::Status CallerLimits::CountCall(const Caller& caller, Use& use) {
  if (options_.calls_per_second <= 0) return absl::OkStatus();
  const double most = 2 * options_.calls_per_second;
  const absl::Duration now = clock_->Steady();
  const double gained = absl::ToDoubleSeconds(now - use.counted) * options_.calls_per_second;
  use.calls_left = std::min(most, use.calls_left + gained);
  use.counted = now;
  if (use.calls_left < 1) {
    return Failure(reasons::kOverloaded,
                   absl::StrCat(caller.name, " makes more than ", options_.calls_per_second,
                                " calls a second: try again in a moment"));
  }
  use.calls_left -= 1;
  return absl::OkStatus();
}

void CallerLimits::Leave(const Caller& caller, absl::string_view method) {
  if (caller.role == kWorker) return;
  MutexLock lock(&mu_);
  Use& use = uses_[caller.name];
  --use.open_calls;
  if (IsUpload(method)) --use.uploads;
}

}  // namespace lwq
