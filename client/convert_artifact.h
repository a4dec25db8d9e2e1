// Re-encoding an artifact that lies on the local disk: lwq-worker does it, this starts it and says
// what came of it.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lwq::client {

struct ConvertFlags {
  std::string source, format, out;
  bool round_scales = false;
};

// What lwq-worker said, as one line of JSON. Errors are those it met; what was written of an
// artifact that failed is removed.
absl::StatusOr<std::string> ConvertArtifactAt(const ConvertFlags& flags);

// That line for people.
absl::StatusOr<std::string> ConvertedText(absl::string_view json, const std::string& out);

// The status that lwq-worker's answer stands for: OK where it is a report.
absl::Status StatusOfConvert(absl::string_view json);

}  // namespace lwq::client
