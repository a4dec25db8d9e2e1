#include "client/client.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/rpc/grpc_status.h"
#include "base/status_macros.h"
#include "client/stream_watch.h"
#include "client/stubs.h"
#include "grpcpp/client_context.h"

namespace lwq::client {
namespace {

template <typename Stub, typename Request, typename Response>
using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

// The one way every unary call is made.
template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Call(const ClientOptions& options, Stub* stub,
                              Method<Stub, Request, Response> method, const Request& request,
                              absl::Duration extra_time = absl::ZeroDuration()) {
  RetryLoop retry(options);
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + options.call_timeout + extra_time));
    Response response;
    const absl::Status status = FromGrpcStatus((stub->*method)(&context, request, &response));
    if (status.ok()) return response;
    LWQ_RETURN_IF_ERROR(retry.BeforeRetry(status));
  }
}

template <typename Request>
Request WithRequestId(Request request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  return request;
}

template <typename Request>
Request Named(const std::string& name) {
  Request request;
  request.set_name(name);
  return request;
}

using JobStub = v1::JobService::Stub;
using ModelStub = v1::ModelService::Stub;
using DatasetStub = v1::DatasetService::Stub;
using ArtifactStub = v1::ArtifactService::Stub;
using BlobStub = v1::BlobService::Stub;
using AdminStub = v1::AdminService::Stub;
using TokenStub = v1::TokenService::Stub;

}  // namespace

std::string NewRequestId() {
  const std::string hex = RandomHex(16);
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

RetryLoop::RetryLoop(const ClientOptions& options)
    : options_(options),
      retry_({.first_wait = options.first_backoff,
              .longest_wait = options.longest_backoff,
              .time = options.retry_for,
              .is_transient = [](const absl::Status& s) { return absl::IsUnavailable(s); }},
             options.clock) {}

absl::Status RetryLoop::BeforeRetry(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return status;
  if (options_.may_go_on) {
    LWQ_RETURN_IF_ERROR(Annotate(options_.may_go_on(),
                                 "while there is no answer from the server at ", options_.address,
                                 " (", status.message(), ")"));
  }
  return Annotate(retry_.BeforeRetry(status), "no answer from the server at ", options_.address,
                  " for ", absl::FormatDuration(options_.retry_for));
}

Client::Client(ClientOptions options)
    : options_(std::move(options)), stubs_(std::make_unique<Stubs>(options_)) {}
Client::~Client() = default;

absl::StatusOr<v1::Job> Client::CreateJob(v1::CreateJobRequest request) {
  return Call(options_, stubs_->job.get(), &JobStub::CreateJob, WithRequestId(std::move(request)));
}
absl::StatusOr<v1::Job> Client::GetJob(const std::string& name) {
  return Call(options_, stubs_->job.get(), &JobStub::GetJob, Named<v1::GetJobRequest>(name));
}
absl::StatusOr<v1::ListJobsResponse> Client::ListJobs(const v1::ListJobsRequest& request) {
  return Call(options_, stubs_->job.get(), &JobStub::ListJobs, request);
}
absl::StatusOr<v1::Job> Client::CancelJob(const std::string& name) {
  return Call(options_, stubs_->job.get(), &JobStub::CancelJob,
              WithRequestId(Named<v1::CancelJobRequest>(name)));
}
absl::StatusOr<v1::Job> Client::RetryJob(const std::string& name) {
  return Call(options_, stubs_->job.get(), &JobStub::RetryJob,
              WithRequestId(Named<v1::RetryJobRequest>(name)));
}
absl::Status Client::DeleteJob(const std::string& name) {
  return Call(options_, stubs_->job.get(), &JobStub::DeleteJob,
              WithRequestId(Named<v1::DeleteJobRequest>(name)))
      .status();
}
absl::StatusOr<v1::PlanJobResponse> Client::PlanJob(const v1::PlanJobRequest& request) {
  return Call(options_, stubs_->job.get(), &JobStub::PlanJob, request);
}
absl::StatusOr<v1::ListTasksResponse> Client::ListTasks(const v1::ListTasksRequest& request) {
  return Call(options_, stubs_->job.get(), &JobStub::ListTasks, request);
}

absl::StatusOr<v1::Model> Client::CreateModel(v1::CreateModelRequest request) {
  return Call(options_, stubs_->model.get(), &ModelStub::CreateModel,
              WithRequestId(std::move(request)));
}
absl::StatusOr<v1::Model> Client::GetModel(const v1::GetModelRequest& request) {
  return Call(options_, stubs_->model.get(), &ModelStub::GetModel, request,
              absl::Seconds(request.wait_seconds()));
}
absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const v1::ListModelsRequest& request) {
  return Call(options_, stubs_->model.get(), &ModelStub::ListModels, request);
}
absl::Status Client::DeleteModel(const std::string& name) {
  return Call(options_, stubs_->model.get(), &ModelStub::DeleteModel,
              WithRequestId(Named<v1::DeleteModelRequest>(name)))
      .status();
}

absl::StatusOr<v1::Dataset> Client::CreateDataset(v1::CreateDatasetRequest request) {
  return Call(options_, stubs_->dataset.get(), &DatasetStub::CreateDataset,
              WithRequestId(std::move(request)));
}
absl::StatusOr<v1::ListDatasetsResponse> Client::ListDatasets(
    const v1::ListDatasetsRequest& request) {
  return Call(options_, stubs_->dataset.get(), &DatasetStub::ListDatasets, request);
}
absl::Status Client::DeleteDataset(const std::string& name) {
  return Call(options_, stubs_->dataset.get(), &DatasetStub::DeleteDataset,
              WithRequestId(Named<v1::DeleteDatasetRequest>(name)))
      .status();
}

absl::StatusOr<v1::Artifact> Client::GetArtifact(const std::string& name) {
  return Call(options_, stubs_->artifact.get(), &ArtifactStub::GetArtifact,
              Named<v1::GetArtifactRequest>(name));
}
absl::StatusOr<v1::ListArtifactsResponse> Client::ListArtifacts(
    const v1::ListArtifactsRequest& request) {
  return Call(options_, stubs_->artifact.get(), &ArtifactStub::ListArtifacts, request);
}
absl::Status Client::DeleteArtifact(const std::string& name) {
  return Call(options_, stubs_->artifact.get(), &ArtifactStub::DeleteArtifact,
              WithRequestId(Named<v1::DeleteArtifactRequest>(name)))
      .status();
}

absl::StatusOr<v1::FindMissingBlobsResponse> Client::FindMissingBlobs(
    const v1::FindMissingBlobsRequest& request) {
  return Call(options_, stubs_->blob.get(), &BlobStub::FindMissingBlobs, request);
}
absl::StatusOr<v1::QueryWriteStatusResponse> Client::QueryWriteStatus(const v1::BlobRef& blob) {
  v1::QueryWriteStatusRequest request;
  *request.mutable_blob() = blob;
  return Call(options_, stubs_->blob.get(), &BlobStub::QueryWriteStatus, request);
}

absl::StatusOr<v1::ServerInfo> Client::GetServerInfo() {
  return Call(options_, stubs_->admin.get(), &AdminStub::GetServerInfo, v1::GetServerInfoRequest());
}
absl::StatusOr<v1::ListTenantsResponse> Client::ListTenants() {
  return Call(options_, stubs_->admin.get(), &AdminStub::ListTenants, v1::ListTenantsRequest());
}
absl::StatusOr<v1::ListWorkersResponse> Client::ListWorkers(const v1::ListWorkersRequest& request) {
  return Call(options_, stubs_->admin.get(), &AdminStub::ListWorkers, request);
}
absl::StatusOr<v1::Worker> Client::CordonWorker(v1::CordonWorkerRequest request) {
  return Call(options_, stubs_->admin.get(), &AdminStub::CordonWorker,
              WithRequestId(std::move(request)));
}
absl::StatusOr<v1::CollectGarbageResponse> Client::CollectGarbage(
    const v1::CollectGarbageRequest& request) {
  return Call(options_, stubs_->admin.get(), &AdminStub::CollectGarbage, request,
              absl::Minutes(30));
}
absl::Status Client::DrainServer() {
  return Call(options_, stubs_->admin.get(), &AdminStub::DrainServer,
              WithRequestId(v1::DrainServerRequest()))
      .status();
}

absl::StatusOr<v1::CreateTokenResponse> Client::CreateToken(v1::CreateTokenRequest request) {
  return Call(options_, stubs_->token.get(), &TokenStub::CreateToken,
              WithRequestId(std::move(request)));
}
absl::StatusOr<v1::ListTokensResponse> Client::ListTokens(const v1::ListTokensRequest& request) {
  return Call(options_, stubs_->token.get(), &TokenStub::ListTokens, request);
}
absl::StatusOr<v1::Token> Client::RevokeToken(const std::string& name) {
  return Call(options_, stubs_->token.get(), &TokenStub::RevokeToken,
              WithRequestId(Named<v1::RevokeTokenRequest>(name)));
}

absl::Status Client::StreamJobEvents(
    const v1::WatchJobRequest& request, absl::Duration idle_limit,
    const std::function<absl::Status(const v1::JobEvent&)>& on_event) {
  grpc::ClientContext context;
  const auto reader = stubs_->job->WatchJob(&context, request);
  return ReadStream<v1::JobEvent>(options_, idle_limit, &context, reader.get(), on_event);
}

absl::Status Client::StreamArtifact(
    const v1::ReadArtifactRequest& request, absl::Duration idle_limit,
    const std::function<absl::Status(const v1::ReadArtifactResponse&)>& on_data) {
  grpc::ClientContext context;
  const auto reader = stubs_->artifact->ReadArtifact(&context, request);
  return ReadStream<v1::ReadArtifactResponse>(options_, idle_limit, &context, reader.get(),
                                              on_data);
}

absl::Status Client::StreamBlob(
    absl::Duration timeout, const std::function<absl::StatusOr<bool>(v1::WriteBlobRequest*)>& next,
    v1::WriteBlobResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const auto writer = stubs_->blob->WriteBlob(&context, response);
  absl::Status failed;
  while (true) {
    v1::WriteBlobRequest request;
    const absl::StatusOr<bool> more = next(&request);
    if (!more.ok()) {
      failed = more.status();
      context.TryCancel();
      break;
    }
    // A refused write means that the server has answered already; Finish says what.
    if (!*more || !writer->Write(request)) break;
  }
  writer->WritesDone();
  const absl::Status finished = FromGrpcStatus(writer->Finish());
  return failed.ok() ? finished : failed;
}

bool IsTerminal(v1::Job::State state) {
  return state == v1::Job::SUCCEEDED || state == v1::Job::FAILED || state == v1::Job::CANCELLED;
}

}  // namespace lwq::client
