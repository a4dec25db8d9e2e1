// Re-encoding an artifact that lies on the local disk: lwq-worker does it, this starts it and says
// what came of it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq::client {

struct ConvertFlags {
  std::string source, format, out;
  bool round_scales = false;
};

// What lwq-worker said, as one line of JSON. Errors are those it met; what was written of an
// artifact that failed is removed.
absl::StatusOr<std::string> ConvertArtifactAt(const ConvertFlags& flags);

// That line, out of what a worker that ended so has written to its log, beside warnings. Status 1
// is an answer too: what it met. FAILED_PRECONDITION CHILD_DIED, with the log's end, where it was
// killed or ended as a program does that could not even say why.
absl::StatusOr<std::string> AnswerOfConvert(int wait_status, absl::string_view log);

// That line for people.
absl::StatusOr<std::string> ConvertedText(absl::string_view json, const std::string& out);

// The status that lwq-worker's answer stands for: OK where it is a report.
absl::Status StatusOfConvert(absl::string_view json);

}  // namespace lwq::client
