#include "client/budget_text.h"

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/size_text.h"
#include "records/plan_records.h"
#include "worker/engine/plan/budget.h"

namespace lwq::client {
namespace {

// "Q4_K_M", "iq4_xs", ...; which there are the server knows.
bool IsRecipe(absl::string_view text) {
  absl::string_view rest = text;
  if (!rest.empty() && absl::ascii_toupper(rest[0]) == 'I') rest.remove_prefix(1);
  return rest.size() >= 3 && rest.size() <= 8 && absl::ascii_toupper(rest[0]) == 'Q' &&
         absl::ascii_isdigit(rest[1]) && rest[2] == '_' &&
         absl::c_all_of(rest, [](char c) { return c == '_' || absl::ascii_isalnum(c); });
}

}  // namespace

absl::StatusOr<v1::Budget> ParseBudget(absl::string_view text) {
  if (IsRecipe(text)) {
    v1::Budget recipe;
    recipe.set_recipe(absl::AsciiStrToUpper(text));
    return recipe;
  }
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
    case v1::Budget::kRecipe:
      return absl::StrCat("llama.cpp's ", budget.recipe());
    case v1::Budget::KIND_NOT_SET:
      break;
  }
  return "none";
}

}  // namespace lwq::client
