// Sizes, durations and shares as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace lwq::client {

// "5.20 MB": decimal units, three digits.
std::string FormatBytes(int64_t bytes);
// "5,200,000".
std::string FormatCount(int64_t count);
// "0.4s", "12s", "3m05s", "2h07m".
std::string FormatSeconds(double seconds);
// Time that is left, as roughly as it is known: "a few seconds", "about 40 s", "about 3 min",
// "about 2 h 10 min".
std::string FormatEstimate(double seconds);
// "99.7%"; "-" when the whole is zero.
std::string FormatShare(double part, double whole);

}  // namespace lwq::client
