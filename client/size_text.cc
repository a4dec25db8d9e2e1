#include "client/size_text.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace lwq::client {
namespace {

struct Unit {
  absl::string_view name;
  double bytes;
};
constexpr std::array<Unit, 10> kUnits = {{{"", 1},
                                          {"B", 1},
                                          {"kB", 1e3},
                                          {"MB", 1e6},
                                          {"GB", 1e9},
                                          {"TB", 1e12},
                                          {"KiB", 1024.0},
                                          {"MiB", 1048576.0},
                                          {"GiB", 1073741824.0},
                                          {"TiB", 1099511627776.0}}};

absl::Status SizeInvalid(absl::string_view text, absl::string_view why) {
  return InvalidFailure("SIZE_INVALID", absl::StrCat("\"", LogSafe(text), "\" ", why));
}

}  // namespace

absl::StatusOr<double> ParseDecimal(absl::string_view text) {
  constexpr size_t kMaxDigits = 18;
  size_t digits = 0;
  size_t dots = 0;
  for (char c : text) {
    if (c == '.') {
      ++dots;
    } else if (absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      ++digits;
    } else {
      return SizeInvalid(text, "is not a plain decimal number");
    }
  }
  double value = 0;
  if (digits == 0 || digits > kMaxDigits || dots > 1 || text.front() == '.' || text.back() == '.' ||
      !absl::SimpleAtod(text, &value)) {
    return SizeInvalid(text, "is not a plain decimal number");
  }
  return value;
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const size_t split = std::min(text.find_first_not_of("0123456789."), text.size());
  LWQ_ASSIGN_OR_RETURN(const double number, ParseDecimal(text.substr(0, split)));
  const absl::string_view suffix = text.substr(split);
  for (const Unit& unit : kUnits) {
    if (!absl::EqualsIgnoreCase(unit.name, suffix)) continue;
    const double bytes = std::floor(number * unit.bytes);
    constexpr double kLimit = 4611686018427387904.0;  // 2^62
    if (bytes < 1 || bytes >= kLimit) {
      return SizeInvalid(text, "is not between one byte and 2^62 bytes");
    }
    return static_cast<int64_t>(bytes);
  }
  return SizeInvalid(text, "has an unknown unit; expected B, kB, MB, GB, TB, KiB, MiB, GiB or TiB");
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<absl::string_view, 5> kNames = {"bytes", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kNames.size()) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0) return absl::StrCat(bytes, " bytes");
  const int decimals = value < 9.995 ? 2 : (value < 99.95 ? 1 : 0);
  return absl::StrFormat("%.*f %s", decimals, value, kNames[unit]);
}

std::string FormatCount(int64_t count) {
  const std::string digits = absl::StrCat(count);
  const size_t first = count < 0 ? 1 : 0;
  std::string result;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) result.push_back(',');
    result.push_back(digits[i]);
  }
  return result;
}

std::string FormatSeconds(double seconds) {
  if (!(seconds >= 0)) return "-";
  if (seconds < 9.95) return absl::StrFormat("%.1fs", seconds);
  const int64_t whole = std::llround(std::min(seconds, 1e12));
  if (whole < 60) return absl::StrCat(whole, "s");
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  return absl::StrFormat("%dh%02dm", whole / 3600, whole % 3600 / 60);
}

std::string FormatShare(double part, double whole) {
  if (!(whole > 0)) return "-";
  return absl::StrFormat("%.1f%%", 100 * part / whole);
}

}  // namespace lwq::client
