// The worker's conversation with the server: registers, polls for a lease, keeps it alive by
// heartbeats on a thread of their own, runs the task, reports. One task at a time. Every call may
// fail: the agent goes on computing, keeps the result and tries again until the server answers or
// says that the lease is lost.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/rpc/tls.h"
#include "grpcpp/channel.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
#include "worker/blob_cache.h"
#include "worker/engine/device/device.h"
#include "worker/lease_keeper.h"
#include "worker/task_engine.h"
#include "worker/worker_metrics.h"

namespace lwq {

struct AgentOptions {
  std::string server;      // unix:/path or host:port
  TlsOptions tls;          // of the connection
  std::string token_file;  // of the token that it shows; empty: none
  std::string worker_id;
  std::string work_directory;
  // Ceiling of what a task takes, of anonymous memory and of a device's own; 0: what the device
  // has.
  int64_t memory_bytes = 0;
  int64_t cache_bytes = int64_t{64} << 30;
  std::string server_blobs;  // see BlobCache::ShareFilesWith; empty: blobs are copied
  // Run ends after so long without a task; for workers that are started when there is work.
  absl::Duration exit_when_idle = absl::InfiniteDuration();
  Clock* clock = Clock::Real();  // outlives the agent
};

class Agent {
 public:
  // Errors are those of the work directory and of the options' files.
  static absl::StatusOr<std::unique_ptr<Agent>> Create(AgentOptions options,
                                                       std::unique_ptr<TaskEngine> engine);
  // Tasks run in this process, on `device`, which outlives the agent.
  static absl::StatusOr<std::unique_ptr<Agent>> Create(AgentOptions options, Device* device);

  // Works until Stop() or until it was idle for options.exit_when_idle (OK), or until another
  // worker took over this worker's id (FAILED_PRECONDITION "INCARNATION_SUPERSEDED"), or until the
  // engine can run nothing any more (INTERNAL "DEVICE_LOST": only another process can use the
  // device again; its task is reported as failed and runs elsewhere; or that no process for tasks
  // can be started). A server that is away is waited for.
  absl::Status Run();

  // Asks Run to give its lease back and return; async-signal-safe.
  void Stop() {
    stopping_ = true;
    blobs_->StopWaiting();
  }

  // Whether the server takes it for a worker of its own. Thread-safe.
  bool registered() const { return registered_; }
  // As Prometheus reads it. Thread-safe.
  std::string ExposeMetrics();

 private:
  Agent(AgentOptions options, std::unique_ptr<TaskEngine> engine,
        std::shared_ptr<grpc::Channel> channel);
  absl::Status Register();
  // Logs why the server gave no answer. TLS_INVALID where that is how this worker is set up.
  absl::Status WarnOfSilence(const absl::Status& status);
  absl::StatusOr<v1::LeaseTasksResponse> Poll();
  void RunLease(const v1::Lease& lease);
  // `keeper`, if any, hears while the server has no room for what is sent.
  void Report(const v1::Lease& lease, const absl::StatusOr<v1::TaskOutput>& result,
              LeaseKeeper& keeper);
  // Sends until the server takes or refuses it.
  absl::Status SendResult(const v1::Lease& lease, const v1::TaskOutput& output,
                          LeaseKeeper* keeper);
  absl::Status SendFailure(const v1::Lease& lease, const absl::Status& why, LeaseKeeper* keeper);
  absl::Status Insist(const std::function<absl::Status(grpc::ClientContext*)>& send,
                      LeaseKeeper* keeper);
  void Release(const v1::Lease& lease);
  // So that nobody waits for it. A server that does not hear it finds out by the silence.
  void SayThatItLeaves();
  v1::RegisterWorkerRequest Registration() const;

  const AgentOptions options_;
  const std::unique_ptr<TaskEngine> engine_;
  const std::string incarnation_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::unique_ptr<BlobCache> blobs_;
  absl::Duration heartbeat_interval_ = absl::Seconds(10);
  WorkerMetrics metrics_;
  absl::Status broken_;  // why no task can be run any more, or OK
  std::atomic<bool> registered_{false};
  bool was_registered_ = false;  // ever
  std::atomic<bool> stopping_{false};
};

}  // namespace lwq
