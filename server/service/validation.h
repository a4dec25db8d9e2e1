// What requests may contain. Every field error of a request is told at once.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/failure_details.h"
#include "google/protobuf/map.h"
#include "google/protobuf/message.h"
#include "proto/lwq/v1/job.pb.h"
#include "server/store/store.h"

namespace lwq {

// Collects field errors. The status has the reason of the first one, and each as a field violation
// (base/failure_details.h).
class FieldErrors {
 public:
  void Add(absl::string_view field, absl::string_view what,
           absl::string_view reason = "FIELD_INVALID");
  absl::Status status() const;

 private:
  std::string reason_;
  std::vector<FieldViolation> errors_;
};

// [a-z]([a-z0-9-]{0,61}[a-z0-9])?
bool IsResourceId(absl::string_view id);
// "jobs/x" with collection "jobs". INVALID_ARGUMENT "NAME_INVALID".
absl::Status CheckName(absl::string_view name, absl::string_view collection);
// Lower-case letters, digits and dashes made of `text`, at most `max` bytes, a resource id.
std::string MakeId(absl::string_view text, size_t max);

// Empty or a UUID. "REQUEST_ID_INVALID".
absl::Status CheckRequestId(absl::string_view request_id);
void CheckLabels(const google::protobuf::Map<std::string, std::string>& labels,
                 FieldErrors& errors);
void CheckPriority(v1::Job::Priority priority, FieldErrors& errors);
void CheckSpec(const v1::JobSpec& spec, FieldErrors& errors);

// SHA-256 of the deterministic serialization.
std::string Fingerprint(const google::protobuf::Message& message);

// A page ends here though it has room for more: the largest message is 4 MiB, and one more item may
// come on top.
constexpr size_t kMaxPageBytes = 2 << 20;

// Keyset paging. The token holds where the page ended and what was asked for.
absl::StatusOr<int> PageSize(int requested, int standard);
std::string MakePageToken(const Record& last, absl::string_view filter);
// Sets the query's start. "PAGE_TOKEN_INVALID".
absl::Status ApplyPageToken(const std::string& token, absl::string_view filter, ListQuery& query);

}  // namespace lwq
