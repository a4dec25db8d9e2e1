// What a failure says beside its reason, for programs: which fields of a request are at fault,
// which quotas are used up, and facts such as the smallest budget that would do. Travels with the
// status, through gRPC too (base/rpc/grpc_status.h).
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lwq {

struct FieldViolation {
  std::string field;  // "quantize.group_size"
  std::string description;
};

// No effect on a status that is OK. A second description of a field replaces the first.
void AddFieldViolation(absl::string_view field, absl::string_view description,
                       absl::Status* status);
// Sorted by field.
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);

struct QuotaViolation {
  std::string subject;  // "tenants/acme"
  std::string description;
};

// No effect on a status that is OK. A second description of a subject replaces the first.
void AddQuotaViolation(absl::string_view subject, absl::string_view description,
                       absl::Status* status);
// Sorted by subject.
std::vector<QuotaViolation> QuotaViolationsOf(const absl::Status& status);

// A fact by name; lower-case letters and underscores.
void AddFact(absl::string_view name, absl::string_view value, absl::Status* status);
std::map<std::string, std::string> FactsOf(const absl::Status& status);

}  // namespace lwq
