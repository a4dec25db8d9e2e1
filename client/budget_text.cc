#include "client/budget_text.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/log.h"
#include "client/size_text.h"

namespace lwq::client {
namespace {

constexpr double kMaxBitsPerWeight = 32;

absl::Status BudgetInvalid(absl::string_view text, absl::string_view why) {
  return InvalidFailure(
      "BUDGET_INVALID",
      absl::StrCat("budget \"", LogSafe(text), "\": ", why,
                   "; expected for example 3.25bpw, 900MiB, 5200000 or 20GB@8192x4"));
}

// A positive integer of digits alone.
bool ParsePositive(absl::string_view text, int64_t* value) {
  return !text.empty() && text.find_first_not_of("0123456789") == absl::string_view::npos &&
         absl::SimpleAtoi(text, value) && *value > 0;
}

}  // namespace

absl::StatusOr<v1::Budget> ParseBudget(absl::string_view text) {
  v1::Budget budget;
  absl::string_view number = text;
  if (absl::ConsumeSuffix(&number, "bpw")) {
    const absl::StatusOr<double> bits = ParseDecimal(number);
    if (!bits.ok()) return BudgetInvalid(text, "no number before \"bpw\"");
    if (*bits <= 0 || *bits > kMaxBitsPerWeight) {
      return BudgetInvalid(text, "bits per weight must be above 0 and at most 32");
    }
    budget.set_bits_per_weight(*bits);
    return budget;
  }
  const size_t at = text.find('@');
  const absl::StatusOr<int64_t> bytes = ParseBytes(text.substr(0, at));
  if (!bytes.ok()) return BudgetInvalid(text, bytes.status().message());
  if (at == absl::string_view::npos) {
    budget.set_file_bytes(*bytes);
    return budget;
  }
  const absl::string_view shape = text.substr(at + 1);
  const size_t times = shape.find('x');
  int64_t context = 0;
  int64_t batch = 0;
  if (times == absl::string_view::npos || !ParsePositive(shape.substr(0, times), &context) ||
      !ParsePositive(shape.substr(times + 1), &batch)) {
    return BudgetInvalid(text, "after \"@\" comes CONTEXTxBATCH");
  }
  budget.mutable_device()->set_bytes(*bytes);
  budget.mutable_device()->set_context_length(context);
  budget.mutable_device()->set_batch_size(batch);
  return budget;
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
    case v1::Budget::KIND_NOT_SET:
      break;
  }
  return "none";
}

}  // namespace lwq::client
