#include "base/rpc/grpc_status.h"

#include <string>

#include "base/failure.h"
#include "base/failure_details.h"
#include "base/reasons.h"
#include "base/rpc/google_rpc.pb.h"
#include "base/utf8.h"

namespace lwq {
namespace {

// Of 8 KiB: the message once percent-encoded and once inside the details, which are base64.
constexpr size_t kMaxTrailerBytes = 7000;
constexpr size_t kMaxFactBytes = 500;
constexpr size_t kMaxFieldBytes = 1500;
constexpr int kRetrySeconds = 1;

// `text` without what takes it over `max_bytes` on the wire, where a byte counts `1 + 4/3` or, when
// it is percent-encoded, `3 + 4/3`. Never cuts inside a UTF-8 character.
std::string CutToTrailer(absl::string_view text, size_t max_bytes) {
  size_t thirds = 0;
  size_t whole = 0;  // characters that fit
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) whole = i;
    thirds += (byte < 0x20 || byte > 0x7e || byte == '%') ? 13 : 7;
    if (thirds > 3 * max_bytes) return std::string(text.substr(0, whole));
  }
  return std::string(text);
}

bool MayBeRetried(const absl::Status& status) {
  const RetryRule rule = ReasonLine(ReasonOf(status), status.code()).retry;
  return IsRetryable(status) && rule.attempts > 0 && !rule.counts;
}

google::rpc::ErrorInfo ErrorInfoOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_domain(kErrorDomain);
  size_t bytes = 0;
  for (const auto& [name, value] : FactsOf(status)) {
    bytes += name.size() + value.size();
    if (bytes <= kMaxFactBytes) (*info.mutable_metadata())[name] = RepairUtf8(value);
  }
  return info;
}

google::rpc::BadRequest BadRequestOf(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad;
  size_t bytes = 0;
  for (const FieldViolation& violation : violations) {
    bytes += violation.field.size() + violation.description.size();
    if (bytes > kMaxFieldBytes) break;
    google::rpc::BadRequest::FieldViolation* field = bad.add_field_violations();
    field->set_field(violation.field);
    field->set_description(RepairUtf8(violation.description));
  }
  return bad;
}

google::rpc::QuotaFailure QuotaFailureOf(const std::vector<QuotaViolation>& violations) {
  google::rpc::QuotaFailure failure;
  size_t bytes = 0;
  for (const QuotaViolation& violation : violations) {
    bytes += violation.subject.size() + violation.description.size();
    if (bytes > kMaxFieldBytes) break;
    google::rpc::QuotaFailure::Violation* quota = failure.add_violations();
    quota->set_subject(violation.subject);
    quota->set_description(RepairUtf8(violation.description));
  }
  return failure;
}

}  // namespace

// Both enumerations are google.rpc.Code, number for number.

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.add_details()->PackFrom(ErrorInfoOf(status));
  const std::vector<FieldViolation> violations = FieldViolationsOf(status);
  if (!violations.empty()) details.add_details()->PackFrom(BadRequestOf(violations));
  const std::vector<QuotaViolation> quotas = QuotaViolationsOf(status);
  if (!quotas.empty()) details.add_details()->PackFrom(QuotaFailureOf(quotas));
  if (MayBeRetried(status)) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
    details.add_details()->PackFrom(retry);
  }
  const size_t taken = details.ByteSizeLong() * 4 / 3;
  const std::string message = CutToTrailer(RepairUtf8(status.message()), kMaxTrailerBytes - taken);
  // The same text in both: Python's library refuses a status whose two messages differ.
  details.set_message(message);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return absl::UnavailableError("the other side ended the call; it is probably stopping");
  }
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  absl::Status result(code, status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::QuotaFailure quota;
    if (detail.UnpackTo(&info) && info.domain() == kErrorDomain && !info.reason().empty()) {
      result.SetPayload(kReasonPayload, absl::Cord(info.reason()));
      for (const auto& [name, value] : info.metadata()) AddFact(name, value, &result);
    } else if (detail.UnpackTo(&bad)) {
      for (const google::rpc::BadRequest::FieldViolation& field : bad.field_violations()) {
        AddFieldViolation(field.field(), field.description(), &result);
      }
    } else if (detail.UnpackTo(&quota)) {
      for (const google::rpc::QuotaFailure::Violation& violation : quota.violations()) {
        AddQuotaViolation(violation.subject(), violation.description(), &result);
      }
    }
  }
  return result;
}

}  // namespace lwq
