#include "base/decimal.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace lwq {
namespace {

// 10^24 is below 2^80: products with 2^33 and sums of them fit 128 bits.
constexpr size_t kMaxDigits = 24;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

}  // namespace

std::optional<Decimal> Decimal::Parse(absl::string_view text) {
  Decimal decimal;
  size_t num_digits = 0;
  bool point = false;
  for (char c : text) {
    if (c == '.') {
      if (point || num_digits == 0) return std::nullopt;
      point = true;
      continue;
    }
    if (c < '0' || c > '9' || ++num_digits > kMaxDigits) return std::nullopt;
    decimal.digits_ = decimal.digits_ * 10 + (c - '0');
    if (point) ++decimal.fraction_digits_;
  }
  if (num_digits == 0 || text.back() == '.') return std::nullopt;
  return decimal;
}

std::optional<Decimal> Decimal::Of(double value) { return Parse(ShortestDecimal(value)); }

Decimal::Int128 Decimal::scale() const {
  Int128 power = 1;
  for (int i = 0; i < fraction_digits_; ++i) power *= 10;
  return power;
}

int64_t Decimal::FloorTimes(int64_t factor, int64_t divisor) const {
  const Int128 scale = this->scale();
  const Int128 whole = digits_ / scale;
  if (whole > (Int128{1} << 126) / factor) return kMost;
  // (digits % scale) * factor may have 24 digits and 63 bits: the factor is split.
  const Int128 rest = digits_ % scale;
  const Int128 high = rest * (factor >> 30);
  const Int128 low = rest * (factor & ((1 << 30) - 1));
  const Int128 fraction = ((high / scale) << 30) + ((high % scale << 30) + low) / scale;
  return static_cast<int64_t>(std::min<Int128>((whole * factor + fraction) / divisor, kMost));
}

std::string DecimalProblem(absl::string_view text) {
  if (text.empty()) return "there is no number";
  if (absl::StrContains(text, ',')) {
    const std::string point = absl::StrReplaceAll(text, {{",", "."}});
    if (Decimal::Parse(point)) {
      return absl::StrCat("a comma is no decimal point: write ", point);
    }
    return absl::StrCat("\"", text, "\": write numbers without commas");
  }
  return absl::StrCat("\"", text, "\" is not a plain positive decimal number");
}

std::string ShortestDecimal(double value) {
  char buffer[400];
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  return std::string(buffer, result.ptr);
}

}  // namespace lwq
