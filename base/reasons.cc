#include "base/reasons.h"

#include <algorithm>
#include <array>

namespace lwq {
namespace {

constexpr std::array kReasons = {
#define LWQ_REASON(constant, name, code, blame, rule, help) &reasons::constant,
#include "base/failure.def"
#undef LWQ_REASON
};

}  // namespace

absl::Status Failure(const Reason& reason, absl::string_view message) {
  return Failure(reason.code, reason.name, message);
}

bool HasReason(const absl::Status& status, const Reason& reason) {
  return ReasonOf(status) == reason.name;
}

absl::Span<const Reason* const> AllReasons() { return kReasons; }

const Reason* FindReason(absl::string_view name) {
  const auto found = std::find_if(kReasons.begin(), kReasons.end(),
                                  [&](const Reason* reason) { return reason->name == name; });
  return found == kReasons.end() ? nullptr : *found;
}

const Reason& ReasonLine(absl::string_view name, absl::StatusCode code) {
  if (const Reason* known = FindReason(name)) return *known;
  const Reason* of_code = FindReason(absl::StatusCodeToString(code));
  return of_code != nullptr ? *of_code : reasons::kUnknown;
}

}  // namespace lwq
