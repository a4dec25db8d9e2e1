#include "worker/engine/plan/budget.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

__extension__ typedef __int128 Int128;

constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
// No stored weight is wider than F64.
constexpr double kMaxBitsPerWeight = 64;
// Digits of a decimal that surely fit Int128 after scaling by a tebibyte: 10^24 * 2^40 < 2^127.
constexpr size_t kMaxDigits = 24;

struct Suffix {
  absl::string_view name;
  int64_t bytes;
};
// Longest match first within each letter: "KiB" and "KB" before "B".
constexpr Suffix kSuffixes[] = {{"TiB", int64_t{1} << 40},
                                {"GiB", int64_t{1} << 30},
                                {"MiB", int64_t{1} << 20},
                                {"KiB", int64_t{1} << 10},
                                {"TB", 1000000000000},
                                {"GB", 1000000000},
                                {"MB", 1000000},
                                {"KB", 1000},
                                {"B", 1}};
// What FormatBudget may write; an exact multiple of the first that divides.
constexpr Suffix kWritten[] = {{"TiB", int64_t{1} << 40}, {"GiB", int64_t{1} << 30},
                               {"MiB", int64_t{1} << 20}, {"TB", 1000000000000},
                               {"GB", 1000000000},        {"MB", 1000000}};

absl::Status Invalid(absl::string_view text, absl::string_view problem) {
  return InvalidFailure(
      "BUDGET_INVALID",
      absl::StrCat("reading the budget \"", text.substr(0, 80), "\": ", problem,
                   "; give bytes (5200000, 900MiB, 4GiB, 1.5GB; units B KB MB GB TB KiB MiB GiB "
                   "TiB), bits per weight (3.25bpw), or device bytes at a context length and batch "
                   "size (20GB@8192x4)"));
}

// digits / 10^fraction_digits, exactly as written.
struct Decimal {
  Int128 digits = 0;
  int fraction_digits = 0;
};

bool ParseDecimal(absl::string_view text, Decimal& out) {
  size_t num_digits = 0;
  bool point = false;
  for (char c : text) {
    if (c == '.') {
      if (point || num_digits == 0) return false;
      point = true;
      continue;
    }
    if (c < '0' || c > '9' || ++num_digits > kMaxDigits) return false;
    out.digits = out.digits * 10 + (c - '0');
    if (point) ++out.fraction_digits;
  }
  return num_digits > 0 && text.back() != '.';
}

Int128 PowerOfTen(int exponent) {
  Int128 power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

bool ParsePositive(absl::string_view text, int64_t max, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && text[0] != '-' && out > 0 &&
         out <= max;
}

absl::Status ParseBytes(absl::string_view whole, absl::string_view text, int64_t& bytes) {
  int64_t unit = 1;
  absl::string_view number = text;
  for (const Suffix& suffix : kSuffixes) {
    if (!absl::EndsWith(text, suffix.name)) continue;
    unit = suffix.bytes;
    number = text.substr(0, text.size() - suffix.name.size());
    break;
  }
  Decimal decimal;
  if (!ParseDecimal(number, decimal)) {
    return Invalid(whole, absl::StrCat("\"", number, "\" is not a plain positive decimal number"));
  }
  if (unit == 1 && decimal.fraction_digits > 0) {
    return Invalid(whole, "a number of bytes has no fraction");
  }
  const Int128 exact = decimal.digits * unit / PowerOfTen(decimal.fraction_digits);
  if (exact > kMaxBytes) return Invalid(whole, "it is 2^63 bytes or more");
  if (exact < 1) return Invalid(whole, "it is less than one byte");
  bytes = static_cast<int64_t>(exact);
  return absl::OkStatus();
}

std::string FormatBytes(int64_t bytes) {
  for (const Suffix& suffix : kWritten) {
    if (bytes > 0 && bytes % suffix.bytes == 0) {
      return absl::StrCat(bytes / suffix.bytes, suffix.name);
    }
  }
  return absl::StrCat(bytes);
}

// The shortest plain decimal that reads back as `value`.
std::string FormatShortest(double value) {
  char buffer[400];
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  return std::string(buffer, result.ptr);
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

absl::StatusOr<Budget> ParseBudget(absl::string_view text) {
  Budget budget;
  if (text.empty()) return Invalid(text, "it is empty");
  constexpr absl::string_view kBpw = "bpw";
  if (absl::EndsWith(text, kBpw)) {
    const absl::string_view number = text.substr(0, text.size() - kBpw.size());
    Decimal decimal;
    if (!ParseDecimal(number, decimal)) {
      return Invalid(text, absl::StrCat("\"", number, "\" is not a plain positive decimal number"));
    }
    budget.kind = Budget::Kind::kBitsPerWeight;
    std::from_chars(number.data(), number.data() + number.size(), budget.bits_per_weight);
    if (!(budget.bits_per_weight > 0) || budget.bits_per_weight > kMaxBitsPerWeight) {
      return Invalid(text, "bits per weight must be above 0 and at most 64");
    }
    return budget;
  }
  const size_t at = text.find('@');
  LWQ_RETURN_IF_ERROR(ParseBytes(text, text.substr(0, at), budget.bytes));
  if (at == absl::string_view::npos) return budget;

  budget.kind = Budget::Kind::kDeviceBytes;
  const absl::string_view shape = text.substr(at + 1);
  const size_t times = shape.find('x');
  constexpr int64_t kMaxShape = int64_t{1} << 40;
  const absl::string_view context = shape.substr(0, times);
  if (context.empty() || !ParsePositive(context, kMaxShape, budget.context_length)) {
    return Invalid(text, absl::StrCat("\"", context, "\" is not a context length in tokens"));
  }
  if (times != absl::string_view::npos) {
    const absl::string_view batch = shape.substr(times + 1);
    if (batch.empty() || !ParsePositive(batch, kMaxShape, budget.batch_size)) {
      return Invalid(text, absl::StrCat("\"", batch, "\" is not a batch size"));
    }
  }
  return budget;
}

std::string FormatBudget(const Budget& budget) {
  switch (budget.kind) {
    case Budget::Kind::kBitsPerWeight:
      return absl::StrCat(FormatShortest(budget.bits_per_weight), "bpw");
    case Budget::Kind::kDeviceBytes:
      return absl::StrCat(FormatBytes(budget.bytes), "@", budget.context_length, "x",
                          budget.batch_size);
    case Budget::Kind::kFileBytes:
      break;
  }
  return FormatBytes(budget.bytes);
}

int64_t BudgetBytes(const Budget& budget, int64_t num_weights) {
  if (budget.kind != Budget::Kind::kBitsPerWeight) return budget.bytes;
  // Not the double but the decimal it was written as: 2.3 bits of 80 weights are 23 bytes, and the
  // double below 2.3 must not make them 22.
  Decimal decimal;
  if (budget.bits_per_weight > 0 && budget.bits_per_weight <= kMaxBitsPerWeight &&
      ParseDecimal(FormatShortest(budget.bits_per_weight), decimal)) {
    const Int128 scale = PowerOfTen(decimal.fraction_digits);
    const Int128 whole = decimal.digits / scale * num_weights;
    // (digits % scale) * num_weights needs 24 digits and 60 bits: split the weights so that it
    // cannot wrap.
    const Int128 rest = decimal.digits % scale;
    const Int128 high = rest * (num_weights >> 30), low = rest * (num_weights & ((1 << 30) - 1));
    const Int128 fraction_eighths = ((high / scale) << 30) + ((high % scale << 30) + low) / scale;
    const Int128 bytes = (whole + fraction_eighths) / 8;
    return static_cast<int64_t>(std::min<Int128>(bytes, kMaxBytes));
  }
  return 0;
}

int64_t KvCacheBytes(const ModelInventory& model, int64_t context_length, int64_t batch_size) {
  return SaturatingProduct(
      {2, model.num_layers, model.num_kv_heads, model.head_dim, 2, context_length, batch_size});
}

}  // namespace lwq
