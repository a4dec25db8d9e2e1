#include "records/blob_names.h"

#include "absl/strings/str_cat.h"

namespace lwq {

std::string UnitBlobName(absl::string_view unit, absl::string_view format) {
  return absl::StrCat(unit, ".", format);
}

std::string EditsBlobName(int layer) { return absl::StrCat("layers.", layer, ".edits"); }

}  // namespace lwq
