// An lwq server in the test's own process that does what the test says: streams that break, digests
// that lie, calls that fail at first.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/rpc/grpc_status.h"
#include "client/client.h"
#include "grpcpp/grpcpp.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"

namespace lwq::client {

class FakeJobs : public v1::JobService::Service {
 public:
  grpc::Status WatchJob(grpc::ServerContext*, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    resumed_from.push_back(request->resume_seq());
    return on_watch(*request, writer);
  }
  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest*, v1::Job* response) override {
    if (failures_before_get-- > 0) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "starting");
    }
    *response = job;
    return grpc::Status::OK;
  }
  grpc::Status CreateJob(grpc::ServerContext*, const v1::CreateJobRequest* request,
                         v1::Job* response) override {
    if (request->validate_only()) {
      *response = request->job();
      if (response->spec().quantize().method().empty()) {
        response->mutable_spec()->mutable_quantize()->set_method("gptq");  // a default
      }
      return grpc::Status::OK;
    }
    request_ids.push_back(request->request_id());
    if (request_ids.size() < 3) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "starting");
    response->set_name("jobs/j-1");
    return grpc::Status::OK;
  }

  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    if (on_list) return on_list(*request, response);
    for (const v1::Job& one : listed) *response->add_jobs() = one;
    return grpc::Status::OK;
  }
  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest* request,
                         v1::Job*) override {
    cancelled.push_back(request->name());
    return grpc::Status::OK;
  }

  std::function<grpc::Status(const v1::WatchJobRequest&, grpc::ServerWriter<v1::JobEvent>*)>
      on_watch;
  std::function<grpc::Status(const v1::ListJobsRequest&, v1::ListJobsResponse*)> on_list;
  std::vector<v1::Job> listed;
  std::vector<std::string> cancelled;
  std::vector<int64_t> resumed_from;
  std::vector<std::string> request_ids;
  v1::Job job;
  int failures_before_get = 0;
};

class FakeArtifacts : public v1::ArtifactService::Service {
 public:
  grpc::Status ReadArtifact(grpc::ServerContext*, const v1::ReadArtifactRequest* request,
                            grpc::ServerWriter<v1::ReadArtifactResponse>* writer) override {
    offsets.push_back(request->read_offset());
    const std::string& content = files[request->file()];
    int64_t sent = 0;
    int64_t offset = request->read_offset();
    while (offset < static_cast<int64_t>(content.size())) {
      if (sent == break_after && breaks-- > 0) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
      }
      v1::ReadArtifactResponse response;
      response.set_offset(offset);
      response.set_data(content.substr(static_cast<size_t>(offset), 10));
      offset += static_cast<int64_t>(response.data().size());
      ++sent;
      writer->Write(response);
    }
    return grpc::Status::OK;
  }

  std::map<std::string, std::string> files;
  std::vector<int64_t> offsets;
  int64_t break_after = -1;  // messages
  int breaks = 0;
};

class FakeBlobs : public v1::BlobService::Service {
 public:
  grpc::Status FindMissingBlobs(grpc::ServerContext*, const v1::FindMissingBlobsRequest* request,
                                v1::FindMissingBlobsResponse* response) override {
    if (complete) return grpc::Status::OK;
    for (const v1::BlobRef& blob : request->blobs()) *response->add_missing() = blob;
    return grpc::Status::OK;
  }
  grpc::Status QueryWriteStatus(grpc::ServerContext*, const v1::QueryWriteStatusRequest*,
                                v1::QueryWriteStatusResponse* response) override {
    response->set_committed_bytes(static_cast<int64_t>(content.size()));
    response->set_complete(complete);
    return grpc::Status::OK;
  }
  grpc::Status WriteBlob(grpc::ServerContext*, grpc::ServerReader<v1::WriteBlobRequest>* reader,
                         v1::WriteBlobResponse*) override {
    v1::WriteBlobRequest request;
    for (int64_t messages = 0; reader->Read(&request); ++messages) {
      if (messages == 0) offsets.push_back(request.write_offset());
      content += request.data();
      if (messages == break_after && breaks-- > 0) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut");
      }
      complete = request.finish_write();
    }
    return grpc::Status::OK;
  }

  std::string content;
  bool complete = false;
  std::vector<int64_t> offsets;
  int64_t break_after = -1;
  int breaks = 0;
};

class FakeDatasets : public v1::DatasetService::Service {
 public:
  grpc::Status CreateDataset(grpc::ServerContext*, const v1::CreateDatasetRequest* request,
                             v1::Dataset* response) override {
    *response = request->dataset();
    response->set_name("datasets/d-1");
    return grpc::Status::OK;
  }
};

// All of them on a Unix socket, and a client of theirs that does not wait long.
class FakeServer {
 public:
  FakeServer() : directory_(*TempDirectory::Create()) {
    address_ = "unix:" + JoinPath(directory_.path(), "s");
    Start();
    options_.address = address_;
    options_.retry_for = absl::Seconds(5);
    options_.first_backoff = absl::Milliseconds(5);
    options_.longest_backoff = absl::Milliseconds(20);
    client_ = std::make_unique<Client>(options_);
  }
  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  Client* client() { return client_.get(); }
  ClientOptions& options() { return options_; }
  void Reconnect() { client_ = std::make_unique<Client>(options_); }
  std::string File(const std::string& name) const { return JoinPath(directory_.path(), name); }

  FakeJobs jobs;
  FakeArtifacts artifacts;
  FakeBlobs blobs;
  FakeDatasets datasets;

 private:
  void Start() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&jobs);
    builder.RegisterService(&artifacts);
    builder.RegisterService(&blobs);
    builder.RegisterService(&datasets);
    server_ = builder.BuildAndStart();
  }

  TempDirectory directory_;
  std::string address_;
  ClientOptions options_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
};

}  // namespace lwq::client
