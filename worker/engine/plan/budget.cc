#include "worker/engine/plan/budget.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/decimal.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

__extension__ typedef __int128 Int128;

constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();

// A quarter of a bit more than the codes, for scales and for a few units in a better format.
constexpr std::array<BudgetPreset, 4> kPresets = {{
    {"2bit", "2.25bpw", "the smallest that still speaks"},
    {"3bit", "3.25bpw", "small, close to the source"},
    {"4bit", "4.25bpw", "the usual choice"},
    {"8bit", "8.25bpw", "as good as the source"},
}};

absl::Status Invalid(absl::string_view text, absl::string_view problem) {
  return Failure(
      reasons::kBudgetInvalid,
      absl::StrCat(
          "reading the budget \"", text.substr(0, 80), "\": ", problem,
          "; give bytes (5200000, 900MiB, 4 GB), bits per weight (3.25bpw), a share of the "
          "source (50%), device bytes at a context length and batch size (20GB@8192x4), or "
          "a preset (2bit, 3bit, 4bit, 8bit)"));
}

bool ParsePositive(absl::string_view text, int64_t max, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && text[0] != '-' && out > 0 &&
         out <= max;
}

// "3.25bpw", "50%": a number in (0, most].
absl::StatusOr<double> ParseMeasure(absl::string_view text, absl::string_view number, double most,
                                    absl::string_view what) {
  if (!Decimal::Parse(number)) return Invalid(text, DecimalProblem(number));
  double value = 0;
  std::from_chars(number.data(), number.data() + number.size(), value);
  if (value > 0 && value <= most) return value;
  return Invalid(text, absl::StrCat(what, " must be above 0 and at most ", most));
}

absl::Status ParseShape(absl::string_view text, absl::string_view shape, Budget& budget) {
  const size_t times = shape.find('x');
  constexpr int64_t kMaxShape = int64_t{1} << 40;
  const absl::string_view context = shape.substr(0, times);
  if (context.empty() || !ParsePositive(context, kMaxShape, budget.context_length)) {
    return Invalid(text, absl::StrCat("\"", context, "\" is not a context length in tokens"));
  }
  if (times == absl::string_view::npos) return absl::OkStatus();
  const absl::string_view batch = shape.substr(times + 1);
  if (batch.empty() || !ParsePositive(batch, kMaxShape, budget.batch_size)) {
    return Invalid(text, absl::StrCat("\"", batch, "\" is not a batch size"));
  }
  return absl::OkStatus();
}

int64_t SaturatingProduct(std::initializer_list<int64_t> factors) {
  Int128 product = 1;
  for (int64_t f : factors) {
    product *= std::max<int64_t>(f, 0);
    if (product > kMaxBytes) return kMaxBytes;
  }
  return static_cast<int64_t>(product);
}

}  // namespace

absl::Span<const BudgetPreset> BudgetPresets() { return kPresets; }

absl::StatusOr<Budget> ParseBudget(absl::string_view text) {
  Budget budget;
  if (text.empty()) return Invalid(text, "it is empty");
  for (const BudgetPreset& preset : kPresets) {
    if (text == preset.name) return ParseBudget(preset.budget);
  }
  const auto [number, unit] = SplitNumberAndUnit(text);
  if (unit == "bpw") {
    budget.kind = Budget::Kind::kBitsPerWeight;
    LWQ_ASSIGN_OR_RETURN(budget.bits_per_weight,
                         ParseMeasure(text, number, kMaxBitsPerWeight, "bits per weight"));
    return budget;
  }
  if (unit == "%") {
    budget.kind = Budget::Kind::kShareOfSource;
    LWQ_ASSIGN_OR_RETURN(budget.percent, ParseMeasure(text, number, 100, "per cent of the source"));
    return budget;
  }
  const size_t at = text.find('@');
  const absl::StatusOr<int64_t> bytes = ParseByteSize(text.substr(0, at));
  if (!bytes.ok()) return Invalid(text, bytes.status().message());
  budget.bytes = *bytes;
  if (at == absl::string_view::npos) return budget;
  budget.kind = Budget::Kind::kDeviceBytes;
  LWQ_RETURN_IF_ERROR(ParseShape(text, text.substr(at + 1), budget));
  return budget;
}

std::string FormatBudget(const Budget& budget) {
  switch (budget.kind) {
    case Budget::Kind::kBitsPerWeight:
      return absl::StrCat(ShortestDecimal(budget.bits_per_weight), "bpw");
    case Budget::Kind::kShareOfSource:
      return absl::StrCat(ShortestDecimal(budget.percent), "%");
    case Budget::Kind::kDeviceBytes:
      return absl::StrCat(FormatByteSize(budget.bytes), "@", budget.context_length, "x",
                          budget.batch_size);
    case Budget::Kind::kFileBytes:
      break;
  }
  return FormatByteSize(budget.bytes);
}

Budget ResolveShare(const Budget& budget, int64_t source_bytes) {
  if (budget.kind != Budget::Kind::kShareOfSource) return budget;
  const std::optional<Decimal> percent = Decimal::Of(budget.percent);
  return {.kind = Budget::Kind::kFileBytes,
          .bytes = percent && source_bytes > 0 ? percent->FloorTimes(source_bytes, 100) : 0};
}

int64_t BudgetBytes(const Budget& budget, int64_t num_weights) {
  if (budget.kind != Budget::Kind::kBitsPerWeight) return budget.bytes;
  // Not the double but the decimal it was written as: 2.3 bits of 80 weights are 23 bytes, and the
  // double below 2.3 must not make them 22.
  const std::optional<Decimal> bits = Decimal::Of(budget.bits_per_weight);
  if (!bits || budget.bits_per_weight > kMaxBitsPerWeight || num_weights <= 0) return 0;
  return bits->FloorTimes(num_weights, 8);
}

int64_t KvCacheBytes(const ModelInventory& model, int64_t context_length, int64_t batch_size) {
  return SaturatingProduct(
      {2, model.num_layers, model.num_kv_heads, model.head_dim, 2, context_length, batch_size});
}

}  // namespace lwq
