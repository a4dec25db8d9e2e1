#include "base/failure_details.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace lwq {
namespace {

// Payload types: these and the name.
constexpr absl::string_view kField = "type.lwq.dev/field/";
constexpr absl::string_view kQuota = "type.lwq.dev/quota/";
constexpr absl::string_view kFact = "type.lwq.dev/fact/";

std::map<std::string, std::string> PayloadsUnder(absl::string_view prefix,
                                                 const absl::Status& status) {
  std::map<std::string, std::string> found;
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    if (absl::ConsumePrefix(&type, prefix)) found.emplace(type, std::string(payload));
  });
  return found;
}

}  // namespace

void AddFieldViolation(absl::string_view field, absl::string_view description,
                       absl::Status* status) {
  status->SetPayload(absl::StrCat(kField, field), absl::Cord(description));
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  for (auto& [field, description] : PayloadsUnder(kField, status)) {
    violations.push_back({field, description});
  }
  return violations;
}

void AddQuotaViolation(absl::string_view subject, absl::string_view description,
                       absl::Status* status) {
  status->SetPayload(absl::StrCat(kQuota, subject), absl::Cord(description));
}

std::vector<QuotaViolation> QuotaViolationsOf(const absl::Status& status) {
  std::vector<QuotaViolation> violations;
  for (auto& [subject, description] : PayloadsUnder(kQuota, status)) {
    violations.push_back({subject, description});
  }
  return violations;
}

void AddFact(absl::string_view name, absl::string_view value, absl::Status* status) {
  status->SetPayload(absl::StrCat(kFact, name), absl::Cord(value));
}

std::map<std::string, std::string> FactsOf(const absl::Status& status) {
  return PayloadsUnder(kFact, status);
}

}  // namespace lwq
