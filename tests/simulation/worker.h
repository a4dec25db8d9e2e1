// A worker process of a simulation: registers, polls, keeps its lease, reads, computes, stores and
// reports, as worker/agent.cc does, on results that are made up.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/lwq/v1/worker_service.pb.h"
#include "tests/simulation/network.h"
#include "tests/simulation/promises.h"

namespace lwq::simulation {

struct WorkerFaults {
  double fails = 0;       // of tasks: reported as failed, for one of several reasons
  double bad_output = 0;  // of tasks: the result is of nothing
  double long_task = 0;   // of tasks: longer than a lease
  double upgrade = 0;     // of starts: with another version of the engine
};

class Worker {
 public:
  // `peer`: its address on the network; two processes may have the same `id`.
  Worker(World* world, Network* network, Promises* promises, const WorkerFaults* faults, int peer,
         std::string id)
      : world_(*world),
        network_(*network),
        promises_(*promises),
        faults_(*faults),
        peer_(peer),
        id_(std::move(id)) {}

  void Start();
  void Kill();
  // SIGTERM: gives its lease back and ends.
  void Terminate();
  void Pause(absl::Duration duration);
  bool is_up() const { return up_; }
  const std::string& id() const { return id_; }

 private:
  // A lease at work.
  struct Task {
    v1::Lease lease;
    int64_t progress = 0;
    bool given_up = false;  // by the server's word
    bool ended = false;
    std::string completion_id;
    v1::TaskOutput output;
    std::vector<std::string> contents;  // of the output's blobs
  };

  // Runs `act` later in this process' life, once it is not paused.
  void Later(absl::Duration wait, std::function<void()> act);
  template <typename Request, typename Response>
  void Call(Network::Method<Request, Response> method, const Request& request,
            absl::Duration timeout, Network::Answer<Response> answer);
  void Register();
  void Poll();
  void Next();
  void Beat(const std::shared_ptr<Task>& task);
  void Read(const std::shared_ptr<Task>& task);
  void Compute(const std::shared_ptr<Task>& task);
  void Write(const std::shared_ptr<Task>& task);
  void Complete(const std::shared_ptr<Task>& task);
  void Fail(const std::shared_ptr<Task>& task, const absl::Status& why);
  void Release(const std::shared_ptr<Task>& task);
  void End(const std::shared_ptr<Task>& task);
  absl::Duration Backoff();
  void Answered() { backoff_ = absl::Milliseconds(100); }

  World& world_;
  Network& network_;
  Promises& promises_;
  const WorkerFaults& faults_;
  const int peer_;
  const std::string id_;
  int life_ = 0;
  bool up_ = false;
  bool stopping_ = false;
  absl::Duration paused_until_ = absl::ZeroDuration();
  absl::Duration backoff_ = absl::Milliseconds(100);
  int machine_ = 0;  // that it asks
  std::string incarnation_;
  int version_ = 1;               // of its engine
  std::deque<v1::Lease> leases_;  // handed out, not begun
  std::vector<Network::Cancel> calls_;
};

// What a task leaves: the same for each run of it. `contents`: of its blobs.
v1::TaskOutput OutputOf(const v1::Lease& lease, std::vector<std::string>& contents);
// What a worker says of itself.
v1::RegisterWorkerRequest RegistrationOf(const std::string& id, const std::string& incarnation,
                                         int version);

}  // namespace lwq::simulation
