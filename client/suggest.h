// What somebody meant who typed a word that nothing here is called. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq::client {

// The choice that is fewest slips away (a letter too many, too few, wrong, or two swapped, whatever
// their case), the first of several; "" where each is too far away to be meant.
std::string Nearest(absl::string_view word, absl::Span<const std::string> choices);

// "; did you mean PREFIX+CHOICE?", or "".
std::string DidYouMean(absl::string_view word, absl::Span<const std::string> choices,
                       absl::string_view prefix = "");

}  // namespace lwq::client
