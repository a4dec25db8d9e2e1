// The text of --budget as the protocol's Budget.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// The grammar and errors are those of worker/engine/plan/budget.h.
absl::StatusOr<v1::Budget> ParseBudget(absl::string_view text);

// The same for people: "3.25 bits per weight", "5,200,000 bytes".
std::string FormatBudget(const v1::Budget& budget);

}  // namespace lwq::client
