// Decimal numbers as people write them, exactly: 2.3 is 23/10 and not the double below it, so that
// 2.3 bits of 80 weights are 23 bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace lwq {

class Decimal {
 public:
  // Digits with at most one point between them: no sign, exponent or blank, at most 24 digits.
  static std::optional<Decimal> Parse(absl::string_view text);
  // The shortest decimal that reads back as `value`; none for a negative or infinite value, or one
  // of more digits than Parse takes.
  static std::optional<Decimal> Of(double value);

  // floor(this * factor / divisor), at most 2^63 - 1. Both above zero.
  int64_t FloorTimes(int64_t factor, int64_t divisor = 1) const;
  bool has_fraction() const { return fraction_digits_ > 0; }

 private:
  __extension__ typedef __int128 Int128;
  Int128 scale() const;

  Int128 digits_ = 0;
  int fraction_digits_ = 0;
};

// Why Parse takes no `text`, for a message: "a comma is no decimal point: write 3.25".
std::string DecimalProblem(absl::string_view text);

// The shortest plain decimal that reads back as `value`.
std::string ShortestDecimal(double value);

}  // namespace lwq
