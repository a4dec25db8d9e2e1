#include "server/service/request_log.h"

#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/record_writes.h"
#include "server/service/validation.h"

namespace lwq {

absl::StatusOr<RequestMark> MarkOf(const google::protobuf::Message& request,
                                   const std::string& tenant) {
  std::unique_ptr<google::protobuf::Message> rest(request.New());
  rest->CopyFrom(request);
  const google::protobuf::FieldDescriptor* field =
      request.GetDescriptor()->FindFieldByName("request_id");
  RequestMark mark;
  mark.id = request.GetReflection()->GetString(request, field);
  LWQ_RETURN_IF_ERROR(CheckRequestId(mark.id));
  mark.id = absl::AsciiStrToLower(mark.id);  // a UUID is one however it is spelt
  if (!mark.id.empty() && tenant != kDefaultTenant) mark.id = absl::StrCat(tenant, "/", mark.id);
  rest->GetReflection()->ClearField(rest.get(), field);
  // With the type, because many requests are a name and nothing else.
  mark.fingerprint =
      Sha256Hex(absl::StrCat(request.GetDescriptor()->full_name(), "\n", Fingerprint(*rest)));
  return mark;
}

absl::StatusOr<std::string> FindRequest(Store& store, const RequestMark& mark) {
  if (mark.id.empty()) return std::string();
  absl::StatusOr<Record> row = store.Get(Table::kRequests, mark.id);
  if (absl::IsNotFound(row.status())) return std::string();
  LWQ_RETURN_IF_ERROR(row.status());
  v1::RequestRecord request;
  if (!request.ParseFromString(row->value)) {
    return Failure(reasons::kStoreCorrupt, absl::StrCat("request ", mark.id));
  }
  if (request.fingerprint() != mark.fingerprint) {
    return Failure(
        reasons::kRequestIdReused,
        absl::StrCat("this request_id came before with another body, for ", request.resource()));
  }
  return request.resource();
}

absl::StatusOr<std::string> FindOvertaking(Store& store, const RequestMark& mark,
                                           const absl::Status& refused) {
  if (ReasonOf(refused) != reasons::kVersionConflict.name) return refused;
  LWQ_ASSIGN_OR_RETURN(std::string resource, FindRequest(store, mark));
  if (resource.empty()) return refused;
  return resource;
}

void RememberRequest(const RequestMark& mark, const std::string& resource, Draft& draft) {
  if (mark.id.empty()) return;
  v1::RequestRecord request;
  request.set_fingerprint(mark.fingerprint);
  request.set_resource(resource);
  request.set_created_us(draft.now_us());
  draft.changes.requests.emplace_back(mark.id, std::move(request));
}

std::vector<Write> RequestWrites(const RequestMark& mark, const std::string& resource, Moment now) {
  const DispatchState none{DispatchOptions()};
  Draft draft(none, now);
  RememberRequest(mark, resource, draft);
  return ToWrites(draft.changes);
}

}  // namespace lwq
