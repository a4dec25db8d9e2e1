#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/model_service.h"
#include "server/service/tenancy.h"
#include "server/service/uploads.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "DatasetService";

// Of its content and whose it is: no tenant's is another's, or would tell that the other has it.
std::string IdOf(const v1::Dataset& dataset, const std::string& tenant) {
  const std::string& sha256 = dataset.blob().sha256();
  const std::string hex =
      tenant == kDefaultTenant ? sha256 : Sha256Hex(absl::StrCat("tenants/", tenant, "\n", sha256));
  return absl::StrCat("d-", hex.substr(0, 20),
                      dataset.kind() == v1::Dataset::JSONL ? "-jsonl" : "");
}

}  // namespace

absl::Status PutDataset(Scheduler& scheduler, v1::Dataset& dataset, const RequestMark& mark) {
  const int64_t now = scheduler.NowUs();
  dataset.mutable_create_time()->set_seconds(now / 1'000'000);
  dataset.mutable_create_time()->set_nanos(static_cast<int32_t>(now % 1'000'000) * 1000);
  Write write{.table = Table::kDatasets};
  write.record.key = dataset.name();
  write.record.order = now;
  write.record.tenant = TenantOf(dataset);
  dataset.SerializeToString(&write.record.value);
  std::vector<Write> writes = RequestWrites(mark, dataset.name(), scheduler.Now());
  writes.push_back(std::move(write));
  return scheduler.store().Commit(writes);
}

absl::Status DatasetServiceImpl::DoCreate(const Caller& caller,
                                          const v1::CreateDatasetRequest& request,
                                          v1::Dataset& response) {
  Scheduler& scheduler = *env_.scheduler;
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(scheduler.store(), mark));
  if (!replayed.empty()) {
    LWQ_ASSIGN_OR_RETURN(response, SeenDataset(scheduler, caller, replayed));
    return absl::OkStatus();
  }
  v1::Dataset dataset = request.dataset();
  FieldErrors errors;
  if (!request.dataset_id().empty() && !IsResourceId(request.dataset_id())) {
    errors.Add("dataset_id", "is not a lower-case id of at most 63 letters, digits and dashes",
               "NAME_INVALID");
  }
  if (dataset.kind() != v1::Dataset::TEXT && dataset.kind() != v1::Dataset::JSONL) {
    errors.Add("dataset.kind", "is neither TEXT nor JSONL");
  }
  if (dataset.description().size() > 4096 || dataset.display_name().size() > 256) {
    errors.Add("dataset", "description over 4,096 or display_name over 256 bytes");
  }
  LWQ_RETURN_IF_ERROR(errors.status());
  const BlobId blob{dataset.blob().sha256(), dataset.blob().size_bytes()};
  // Who names content has sent it: what another sent is not there.
  LWQ_ASSIGN_OR_RETURN(const bool there, HasFor(scheduler, caller, blob));
  if (!there) {
    return PreconditionFailure(reasons::kBlobMissing.name,
                               absl::StrCat("blob ", blob.sha256, " is not there: write it first"));
  }
  const std::string id =
      request.dataset_id().empty() ? IdOf(dataset, caller.tenant) : request.dataset_id();
  dataset.set_name(absl::StrCat("datasets/", id));
  dataset.set_tenant(caller.tenant);
  absl::StatusOr<v1::Dataset> existing = scheduler.GetDataset(dataset.name());
  if (existing.ok()) {
    if (TenantOf(*existing) == caller.tenant && existing->blob().sha256() == blob.sha256 &&
        existing->kind() == dataset.kind()) {
      response = *std::move(existing);
      return absl::OkStatus();
    }
    return Failure(reasons::kAlreadyExists,
                   absl::StrCat(dataset.name(), " stands for other content"));
  }
  if (!absl::IsNotFound(existing.status())) return existing.status();
  LWQ_RETURN_IF_ERROR(NoteUpload(scheduler, caller, blob));
  LWQ_RETURN_IF_ERROR(PutDataset(scheduler, dataset, mark));
  response = std::move(dataset);
  return absl::OkStatus();
}

absl::Status DatasetServiceImpl::DoList(const Caller& caller,
                                        const v1::ListDatasetsRequest& request,
                                        v1::ListDatasetsResponse& response) {
  ListQuery query;
  query.order = ListQuery::Order::kNewestFirst;
  LWQ_ASSIGN_OR_RETURN(query.limit, PageSize(request.page_size(), 50));
  LWQ_ASSIGN_OR_RETURN(query.tenants,
                       TenantsToList(caller, request.tenant(), request.all_tenants()));
  if (!query.tenants.empty()) query.tenants.push_back(kEverybody);
  LWQ_RETURN_IF_ERROR(ApplyPageToken(request.page_token(), "datasets", query));
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                       env_.scheduler->store().List(Table::kDatasets, query));
  size_t bytes = 0;
  for (const Record& row : rows) {
    response.add_datasets()->ParseFromString(row.value);
    bytes += row.value.size();
    const bool full = response.datasets_size() == query.limit || bytes > kMaxPageBytes;
    if (!full) continue;
    response.set_next_page_token(MakePageToken(row, "datasets"));
    break;
  }
  return absl::OkStatus();
}

absl::Status DatasetServiceImpl::DoDelete(const Caller& caller,
                                          const v1::DeleteDatasetRequest& request) {
  LWQ_RETURN_IF_ERROR(CheckName(request.name(), "datasets"));
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(env_.scheduler->store(), mark));
  if (!replayed.empty()) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(const v1::Dataset dataset,
                       SeenDataset(*env_.scheduler, caller, request.name()));
  if (TenantOf(dataset) == kEverybody && !caller.sees_all()) {
    return Failure(reasons::kRoleRequired,
                   absl::StrCat(request.name(), " is the server's; operators may delete it"));
  }
  std::string user;
  env_.scheduler->View([&](const DispatchState& state) {
    for (const auto& [name, job] : state.jobs()) {
      const std::vector<std::string> used = DatasetsOf(job.job().spec());
      if (std::find(used.begin(), used.end(), request.name()) != used.end()) user = name;
    }
  });
  if (!user.empty()) {
    return Failure(reasons::kDatasetInUse, absl::StrCat(request.name(), " is used by ", user));
  }
  Write write{.table = Table::kDatasets, .remove = true};
  write.record.key = request.name();
  std::vector<Write> writes = RequestWrites(mark, request.name(), env_.scheduler->Now());
  writes.push_back(std::move(write));
  return env_.scheduler->store().Commit(writes);
}

grpc::ServerUnaryReactor* DatasetServiceImpl::CreateDataset(grpc::CallbackServerContext* context,
                                                            const v1::CreateDatasetRequest* request,
                                                            v1::Dataset* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "CreateDataset", *env_.write,
      [=, this](const Caller& caller) { return DoCreate(caller, *request, *response); },
      {request, response});
}

grpc::ServerUnaryReactor* DatasetServiceImpl::GetDataset(grpc::CallbackServerContext* context,
                                                         const v1::GetDatasetRequest* request,
                                                         v1::Dataset* response) {
  return RunUnaryAs(env_, context, kServiceName, "GetDataset", *env_.read,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_ASSIGN_OR_RETURN(*response,
                                           SeenDataset(*env_.scheduler, caller, request->name()));
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* DatasetServiceImpl::ListDatasets(grpc::CallbackServerContext* context,
                                                           const v1::ListDatasetsRequest* request,
                                                           v1::ListDatasetsResponse* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "ListDatasets", *env_.read,
      [=, this](const Caller& caller) { return DoList(caller, *request, *response); });
}

grpc::ServerUnaryReactor* DatasetServiceImpl::DeleteDataset(grpc::CallbackServerContext* context,
                                                            const v1::DeleteDatasetRequest* request,
                                                            v1::DeleteDatasetResponse*) {
  return RunUnaryAs(env_, context, kServiceName, "DeleteDataset", *env_.write,
                    [=, this](const Caller& caller) { return DoDelete(caller, *request); },
                    {request});
}

}  // namespace lwq
