#include "client/budget_text.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/size_text.h"
#include "records/plan_records.h"
#include "worker/engine/plan/budget.h"

namespace lwq::client {

absl::StatusOr<v1::Budget> ParseBudget(absl::string_view text) {
  LWQ_ASSIGN_OR_RETURN(const Budget budget, lwq::ParseBudget(text));
  return BudgetToProto(budget);
}

std::string FormatBudget(const v1::Budget& budget) {
  switch (budget.kind_case()) {
    case v1::Budget::kFileBytes:
      return absl::StrCat(FormatCount(budget.file_bytes()), " bytes");
    case v1::Budget::kBitsPerWeight:
      return absl::StrFormat("%g bits per weight", budget.bits_per_weight());
    case v1::Budget::kDevice:
      return absl::StrCat(FormatCount(budget.device().bytes()), " bytes of device memory at ",
                          budget.device().context_length(), " tokens x ",
                          budget.device().batch_size());
    case v1::Budget::kSourcePercent:
      return absl::StrFormat("%g %% of the source", budget.source_percent());
    case v1::Budget::KIND_NOT_SET:
      break;
  }
  return "none";
}

}  // namespace lwq::client
