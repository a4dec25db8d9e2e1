// Numbers of bytes as people write them on command lines.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// "5200000", "900MB", "4 GiB", "1.5gb": a decimal number, perhaps a blank, and perhaps a unit in any
// letter case: B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024). At least one
// byte and below 2^63; a fraction of a byte is cut off. INVALID_ARGUMENT "SIZE_INVALID" otherwise.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

// The shortest that ParseByteSize reads back as `bytes`: "900MiB", "7MB", "5200001".
std::string FormatByteSize(int64_t bytes);

// "4 GiB" as {"4", "GiB"}: what is before the first character that no number has, and what comes
// after it and one blank.
std::pair<absl::string_view, absl::string_view> SplitNumberAndUnit(absl::string_view text);

}  // namespace lwq
