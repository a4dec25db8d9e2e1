#include "client/size_text.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace lwq::client {

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

std::string FormatEstimate(double seconds) {
  if (!(seconds >= 8)) return "a few seconds";
  const auto rounded = [seconds](double unit) {
    return static_cast<int64_t>(std::llround(seconds / unit));
  };
  if (seconds < 57.5) return absl::StrCat("about ", 5 * rounded(5), " s");
  if (seconds < 59.5 * 60) return absl::StrCat("about ", std::max<int64_t>(rounded(60), 1), " min");
  const int64_t tens = rounded(600);
  const int64_t hours = tens / 6, minutes = tens % 6 * 10;
  return minutes == 0 ? absl::StrCat("about ", hours, " h")
                      : absl::StrCat("about ", hours, " h ", minutes, " min");
}

std::string FormatShare(double part, double whole) {
  if (!(whole > 0)) return "-";
  return absl::StrFormat("%.1f%%", 100 * part / whole);
}

}  // namespace lwq::client
