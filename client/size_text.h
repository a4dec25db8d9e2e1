// Sizes, durations and shares as people write and read them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq::client {

// A plain decimal number ("3", "3.25"): no sign, no exponent, no blanks, at most 18 digits.
// INVALID_ARGUMENT SIZE_INVALID otherwise.
absl::StatusOr<double> ParseDecimal(absl::string_view text);

// "5200000", "900MiB", "1.5GB": bytes, above zero and below 2^62. Units: B, kB, MB, GB, TB (powers
// of 1000), KiB, MiB, GiB, TiB (powers of 1024), any letter case. A fraction of a byte is cut off.
// INVALID_ARGUMENT SIZE_INVALID otherwise.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "5.20 MB": decimal units, three digits.
std::string FormatBytes(int64_t bytes);
// "5,200,000".
std::string FormatCount(int64_t count);
// "0.4s", "12s", "3m05s", "2h07m".
std::string FormatSeconds(double seconds);
// "99.7%"; "-" when the whole is zero.
std::string FormatShare(double part, double whole);

}  // namespace lwq::client
