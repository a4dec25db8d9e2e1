// A server of which a test decides what it answers, over a Unix socket.
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mutex.h"
#include "base/rpc/grpc_status.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"

namespace lwq::testing {

inline v1::BlobRef RefOf(const std::string& content) {
  v1::BlobRef blob;
  blob.set_sha256(Sha256Hex(content));
  blob.set_size_bytes(static_cast<int64_t>(content.size()));
  return blob;
}

// Blobs in memory; each call is cut after so many bytes.
class FakeBlobs final : public v1::BlobService::Service {
 public:
  int64_t cut_after = INT64_MAX;
  std::map<std::string, std::string> blobs;    // by digest
  std::map<std::string, std::string> uploads;  // unfinished
  std::vector<int64_t> read_offsets, write_offsets;
  int64_t bytes_sent = 0;
  int full_for = 0;  // so many uploads find no room
  std::string uploads_directory;  // where a client may have linked a whole upload

  grpc::Status ReadBlob(grpc::ServerContext*, const v1::ReadBlobRequest* request,
                        grpc::ServerWriter<v1::ReadBlobResponse>* writer) override {
    read_offsets.push_back(request->read_offset());
    const std::string& content = blobs[request->blob().sha256()];
    int64_t left = cut_after;
    for (int64_t at = request->read_offset(); at < static_cast<int64_t>(content.size());) {
      if (left <= 0) return {grpc::StatusCode::UNAVAILABLE, "cut"};
      v1::ReadBlobResponse response;
      response.set_offset(at);
      response.set_data(content.substr(at, std::min<int64_t>(left, 64 << 10)));
      at += static_cast<int64_t>(response.data().size());
      left -= static_cast<int64_t>(response.data().size());
      bytes_sent += static_cast<int64_t>(response.data().size());
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status QueryWriteStatus(grpc::ServerContext*, const v1::QueryWriteStatusRequest* request,
                                v1::QueryWriteStatusResponse* response) override {
    FindLinked(request->blob().sha256());
    response->set_complete(blobs.count(request->blob().sha256()) > 0);
    response->set_committed_bytes(static_cast<int64_t>(uploads[request->blob().sha256()].size()));
    return grpc::Status::OK;
  }
  grpc::Status WriteBlob(grpc::ServerContext*, grpc::ServerReader<v1::WriteBlobRequest>* reader,
                         v1::WriteBlobResponse* response) override {
    if (full_for > 0) {
      --full_for;
      return ToGrpcStatus(
          Failure(absl::StatusCode::kResourceExhausted, "STORAGE_FULL", "the disk is full"));
    }
    v1::WriteBlobRequest request;
    std::string digest;
    int64_t left = cut_after;
    while (reader->Read(&request)) {
      if (request.has_blob()) {
        digest = request.blob().sha256();
        FindLinked(digest);
        write_offsets.push_back(request.write_offset());
      }
      uploads[digest] += request.data();
      left -= static_cast<int64_t>(request.data().size());
      if (request.finish_write()) {
        blobs[digest] = uploads[digest];
        response->set_committed_bytes(static_cast<int64_t>(blobs[digest].size()));
        return grpc::Status::OK;
      }
      if (left <= 0) return {grpc::StatusCode::UNAVAILABLE, "cut"};
    }
    return {grpc::StatusCode::INVALID_ARGUMENT, "ended"};
  }

 private:
  void FindLinked(const std::string& digest) {
    if (uploads_directory.empty()) return;
    if (auto content = ReadFile(JoinPath(uploads_directory, digest), 1 << 30); content.ok()) {
      uploads[digest] = *std::move(content);
    }
  }
};

// Hands out the leases it is given, and answers reports as it is told.
class FakeWorkers final : public v1::WorkerService::Service {
 public:
  std::function<grpc::Status(int call)> answer_report = [](int) { return grpc::Status::OK; };
  std::function<grpc::Status(int call)> answer_register = answer_report;
  std::function<grpc::Status(int call)> answer_result = answer_report;
  std::function<grpc::Status(int call)> answer_release = answer_report;
  Mutex mu;
  std::vector<v1::Lease> leases ABSL_GUARDED_BY(mu);
  std::vector<v1::HeartbeatRequest> beats ABSL_GUARDED_BY(mu);
  int reports ABSL_GUARDED_BY(mu) = 0;
  int registrations ABSL_GUARDED_BY(mu) = 0;
  int results ABSL_GUARDED_BY(mu) = 0;
  int releases ABSL_GUARDED_BY(mu) = 0;
  v1::Failure last_failure ABSL_GUARDED_BY(mu);

  grpc::Status RegisterWorker(grpc::ServerContext*, const v1::RegisterWorkerRequest*,
                              v1::RegisterWorkerResponse*) override {
    MutexLock lock(&mu);
    return answer_register(++registrations);
  }
  grpc::Status CompleteTask(grpc::ServerContext*, const v1::CompleteTaskRequest*,
                            v1::CompleteTaskResponse*) override {
    MutexLock lock(&mu);
    return answer_result(++results);
  }
  grpc::Status LeaseTasks(grpc::ServerContext*, const v1::LeaseTasksRequest*,
                          v1::LeaseTasksResponse* response) override {
    MutexLock lock(&mu);
    for (v1::Lease& lease : leases) *response->add_leases() = std::move(lease);
    leases.clear();
    return grpc::Status::OK;
  }
  grpc::Status Heartbeat(grpc::ServerContext*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse*) override {
    MutexLock lock(&mu);
    beats.push_back(*request);
    return grpc::Status::OK;
  }
  grpc::Status FailTask(grpc::ServerContext*, const v1::FailTaskRequest* request,
                        v1::FailTaskResponse*) override {
    MutexLock lock(&mu);
    last_failure = request->failure();
    return answer_report(++reports);
  }
  grpc::Status ReleaseTasks(grpc::ServerContext*, const v1::ReleaseTasksRequest*,
                            v1::ReleaseTasksResponse*) override {
    MutexLock lock(&mu);
    return answer_release(++releases);
  }
};

class FakeServer {
 public:
  explicit FakeServer(const std::string& directory)
      : address_(absl::StrCat("unix:", directory, "/s")) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&blobs);
    builder.RegisterService(&workers);
    server_ = builder.BuildAndStart();
  }
  const std::string& address() const { return address_; }

  FakeBlobs blobs;
  FakeWorkers workers;

 private:
  const std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace lwq::testing
