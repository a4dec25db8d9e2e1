// The text of --budget as the protocol's Budget.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// "3.25bpw": bits per weight. "900MiB", "5200000": bytes of the weight files. "20GB@8192x4": bytes
// of device memory at a context of 8192 tokens and a batch of 4. Strict: no blanks, signs or
// exponents. INVALID_ARGUMENT BUDGET_INVALID otherwise.
absl::StatusOr<v1::Budget> ParseBudget(absl::string_view text);

// The same for people: "3.25 bits per weight", "5,200,000 bytes".
std::string FormatBudget(const v1::Budget& budget);

}  // namespace lwq::client
