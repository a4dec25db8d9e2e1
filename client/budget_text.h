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

// What a plan of the budget takes at least on a disk, roughly, of a model whose weight files have
// `source_bytes`; 0 where that cannot be told.
int64_t LeastBytesOf(const v1::Budget& budget, int64_t source_bytes);

}  // namespace lwq::client
