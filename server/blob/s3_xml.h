// The little of XML that S3's answers need.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lwq {

// What stands in each <name>...</name>, as it is in the text. An element without an end is left
// out.
std::vector<absl::string_view> XmlElements(absl::string_view xml, absl::string_view name);
// The text of the first such element, with entities resolved; "" without one.
std::string XmlText(absl::string_view xml, absl::string_view name);

}  // namespace lwq
