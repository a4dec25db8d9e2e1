#include "base/byte_size.h"

#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/decimal.h"
#include "base/log.h"
#include "base/reasons.h"

namespace lwq {
namespace {

struct Unit {
  absl::string_view name;
  int64_t bytes;
};

constexpr Unit kUnits[] = {{"TiB", int64_t{1} << 40},
                           {"GiB", int64_t{1} << 30},
                           {"MiB", int64_t{1} << 20},
                           {"KiB", int64_t{1} << 10},
                           {"TB", 1'000'000'000'000},
                           {"GB", 1'000'000'000},
                           {"MB", 1'000'000},
                           {"kB", 1'000},
                           {"B", 1}};

absl::Status Invalid(absl::string_view text, absl::string_view problem) {
  return Failure(reasons::kSizeInvalid,
                 absl::StrCat("the size \"", LogSafe(text.substr(0, 80)), "\": ", problem));
}

}  // namespace

std::pair<absl::string_view, absl::string_view> SplitNumberAndUnit(absl::string_view text) {
  const size_t end = text.find_first_not_of("0123456789.,");
  if (end == absl::string_view::npos) return {text, ""};
  absl::string_view unit = text.substr(end);
  absl::ConsumePrefix(&unit, " ");
  return {text.substr(0, end), unit};
}

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  const auto [number, unit] = SplitNumberAndUnit(text);
  int64_t unit_bytes = unit.empty() ? 1 : 0;
  for (const Unit& known : kUnits) {
    if (absl::EqualsIgnoreCase(unit, known.name)) unit_bytes = known.bytes;
  }
  if (unit_bytes == 0 && !number.empty()) {
    return Invalid(text, absl::StrCat("\"", LogSafe(unit.substr(0, 20)),
                                      "\" is no unit of bytes; units are B, kB, MB, GB, TB and KiB, "
                                      "MiB, GiB, TiB"));
  }
  const std::optional<Decimal> decimal = Decimal::Parse(number);
  if (!decimal) {
    return Invalid(text, DecimalProblem(number.empty() ? LogSafe(text) : std::string(number)));
  }
  if (unit_bytes == 1 && decimal->has_fraction()) {
    return Invalid(text, "a number of bytes has no fraction");
  }
  const int64_t bytes = decimal->FloorTimes(unit_bytes);
  if (bytes < 1) return Invalid(text, "it is less than one byte");
  if (bytes == std::numeric_limits<int64_t>::max()) return Invalid(text, "it is too large");
  return bytes;
}

std::string FormatByteSize(int64_t bytes) {
  // Two or three letters save digits from thousands of kilobytes on.
  for (const char* name : {"TiB", "GiB", "MiB", "TB", "GB", "MB"}) {
    for (const Unit& unit : kUnits) {
      if (unit.name == name && bytes > 0 && bytes % unit.bytes == 0) {
        return absl::StrCat(bytes / unit.bytes, name);
      }
    }
  }
  return absl::StrCat(bytes);
}

}  // namespace lwq
