// The client of an lwq server: blocking calls with deadlines, retried while the server cannot be
// reached. Keepalive finds dead peers; long outages, such as a restart, are waited out by
// this library's own loop because gRPC's stops after five attempts.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/retry.h"
#include "grpcpp/security/credentials.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/artifact_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/model_service.pb.h"
#include "proto/lwq/v1/token_service.pb.h"

namespace lwq::client {

struct ClientOptions {
  std::string address;  // "unix:/path", "host:port", "dns:///name:port"
  // Null: no transport security (base/rpc/tls.h).
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  absl::Duration call_timeout = absl::Seconds(30);
  // For how long calls are repeated while the server cannot be reached. Zero: never repeated.
  absl::Duration retry_for = absl::Seconds(60);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration longest_backoff = absl::Seconds(2);
  // Asked before a call is repeated and while a stream is silent; an error ends the call with it.
  // Says, for example, that the server's process has been given up or that the user pressed Ctrl-C.
  std::function<absl::Status()> may_go_on;
  Clock* clock = Clock::Real();
};

// A request id: 128 random bits in UUID form.
std::string NewRequestId();

// Repeats an operation while it fails with UNAVAILABLE.
class RetryLoop {
 public:
  explicit RetryLoop(const ClientOptions& options);
  // Sleeps and returns OK when the operation is to be tried again after `status`; else the error to
  // return: `status` itself, or what may_go_on says.
  absl::Status BeforeRetry(const absl::Status& status);
  // The operation came forward: the time allowed begins anew.
  void Reset() { retry_.Reset(); }

 private:
  const ClientOptions& options_;
  Retry retry_;
};

// Thread-safe. Every call ends within its deadline, or with the retries within retry_for. Errors
// carry the server's reason (base/failure.h).
class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const ClientOptions& options() const { return options_; }

  // Calls whose request lacks a request_id get one, so that a repeated call does its work once.
  absl::StatusOr<v1::Job> CreateJob(v1::CreateJobRequest request);
  absl::StatusOr<v1::Job> GetJob(const std::string& name);
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request);
  absl::StatusOr<v1::Job> CancelJob(const std::string& name);
  absl::StatusOr<v1::Job> RetryJob(const std::string& name);
  absl::Status DeleteJob(const std::string& name);
  absl::StatusOr<v1::PlanJobResponse> PlanJob(const v1::PlanJobRequest& request);
  absl::StatusOr<v1::ListTasksResponse> ListTasks(const v1::ListTasksRequest& request);

  absl::StatusOr<v1::Model> CreateModel(v1::CreateModelRequest request);
  absl::StatusOr<v1::Model> GetModel(const v1::GetModelRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels(const v1::ListModelsRequest& request);
  absl::Status DeleteModel(const std::string& name);

  absl::StatusOr<v1::Dataset> CreateDataset(v1::CreateDatasetRequest request);
  absl::StatusOr<v1::ListDatasetsResponse> ListDatasets(const v1::ListDatasetsRequest& request);
  absl::Status DeleteDataset(const std::string& name);

  absl::StatusOr<v1::Artifact> GetArtifact(const std::string& name);
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const v1::ListArtifactsRequest& request);
  absl::Status DeleteArtifact(const std::string& name);

  absl::StatusOr<v1::FindMissingBlobsResponse> FindMissingBlobs(
      const v1::FindMissingBlobsRequest& request);
  absl::StatusOr<v1::QueryWriteStatusResponse> QueryWriteStatus(const v1::BlobRef& blob);

  absl::StatusOr<v1::ServerInfo> GetServerInfo();
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers(const v1::ListWorkersRequest& request);
  absl::StatusOr<v1::ListTenantsResponse> ListTenants();
  absl::StatusOr<v1::Worker> CordonWorker(v1::CordonWorkerRequest request);
  // May take minutes: every record and blob is looked at.
  absl::StatusOr<v1::CollectGarbageResponse> CollectGarbage(
      const v1::CollectGarbageRequest& request);
  absl::Status DrainServer();

  absl::StatusOr<v1::CreateTokenResponse> CreateToken(v1::CreateTokenRequest request);
  absl::StatusOr<v1::ListTokensResponse> ListTokens(const v1::ListTokensRequest& request);
  absl::StatusOr<v1::Token> RevokeToken(const std::string& name);

  // One attempt at a stream; the callers in upload.h, watch.h and download.h resume. A callback
  // that returns an error ends the stream with it. `idle_limit`: the longest silence that is borne
  // (UNAVAILABLE afterwards); may_go_on is asked twice a second meanwhile.
  absl::Status StreamJobEvents(const v1::WatchJobRequest& request, absl::Duration idle_limit,
                               const std::function<absl::Status(const v1::JobEvent&)>& on_event);
  absl::Status StreamArtifact(
      const v1::ReadArtifactRequest& request, absl::Duration idle_limit,
      const std::function<absl::Status(const v1::ReadArtifactResponse&)>& on_data);
  // Sends what `next` makes until it returns false.
  absl::Status StreamBlob(absl::Duration timeout,
                          const std::function<absl::StatusOr<bool>(v1::WriteBlobRequest*)>& next,
                          v1::WriteBlobResponse* response);

 private:
  struct Stubs;
  const ClientOptions options_;
  std::unique_ptr<Stubs> stubs_;
};

// True for a job that will not change any more.
bool IsTerminal(v1::Job::State state);

}  // namespace lwq::client
