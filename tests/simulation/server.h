// A server of a simulation: the product's scheduler, services and collector, on executors that run
// when the simulation says, under the machine's own clock. Its rows and blobs outlive it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/blob/collectable_blob_store.h"
#include "server/blob/memory_blob_store.h"
#include "server/service/collector.h"
#include "server/service/job_service.h"
#include "server/service/worker_service.h"
#include "server/store/leadership.h"
#include "tests/simulation/calls.h"
#include "tests/simulation/store.h"
#include "tests/testing/fault_plan.h"

namespace lwq::simulation {

// What is durable, and the rates of faults. Outlives all servers.
struct Medium {
  Store* rows = nullptr;
  MemoryBlobStore* blobs = nullptr;
  StoreFaults store_faults;
  double blob_faults = 0;
  double meanwhile = 0;  // how often another thread gets in between during a call of the store
  bool is_shared = false;
  DispatchOptions dispatch;
  Retention retention;
  Plant plant = Plant::kNone;
};

// Who calls is whom the simulation says: "" is nobody in particular, who sees all.
class SimGuard final : public Guard {
 public:
  explicit SimGuard(Clock* clock) : Guard(/*enforced=*/false, nullptr, clock) {}
  absl::Status Admit(const grpc::ServerContextBase&, absl::string_view, absl::string_view,
                     Caller* caller) const override {
    *caller = tenant.empty() ? Caller{.name = "local", .role = kAdmin}
                             : Caller{.name = tenant, .role = kClient, .tenant = tenant};
    return absl::OkStatus();
  }
  std::string tenant;
};

class SimServer {
 public:
  // `store` is `cord`, or fenced over it. `leadership` is null when there is one server.
  SimServer(World* world, Medium* medium, Clock* clock, std::unique_ptr<ServerStore> cord,
            std::unique_ptr<Leadership> leadership);
  ~SimServer();

  // What Server::Start does. The server may not be used after an error.
  absl::Status Start();
  // One turn of each executor that has work and none scheduled. To be called after each event.
  void Schedule();
  void Tick();
  void Reap();
  void Collect();
  void RenewLease();

  // SIGKILL: nothing that it does from here on is heard of. SIGTERM: calls are ended, what is
  // queued is done.
  void Kill();
  void Drain();

  bool is_alive() const { return alive_; }
  bool is_idle() const;
  // A pause: the process stands still, its clock does not.
  void PauseUntil(absl::Duration end) { paused_until_ = end; }
  bool is_paused() const { return world_.now() < paused_until_; }
  absl::Duration paused_until() const { return paused_until_; }

  Scheduler& scheduler() { return *scheduler_; }
  JobServiceImpl& jobs() { return *jobs_; }
  WorkerServiceImpl& workers() { return *workers_; }
  CollectableBlobStore& blobs() { return *blobs_; }
  ServiceEnv& env() { return env_; }
  // Of the calls that begin from here on.
  void CallAs(const std::string& tenant) { guard_.tenant = tenant; }
  Leadership* leadership() { return leadership_.get(); }
  ServerStore& cord() { return *cord_; }

  // A call that the server has begun, in the order of their numbers.
  int64_t Opened(std::shared_ptr<OpenCall> call) {
    open_.emplace(++last_call_, std::move(call));
    return last_call_;
  }
  void Closed(int64_t number) { open_.erase(number); }
  const std::map<int64_t, std::shared_ptr<OpenCall>>& open() const { return open_; }

 private:
  struct Lane {
    std::unique_ptr<Executor> executor;
    bool scheduled = false;
    bool in_commits = false;  // may run while another lane's commit is under way
  };
  void RunLane(Lane& lane);
  // Another thread's work, in the middle of a call of the store by the lane that runs.
  void Meanwhile(bool in_commit);
  void RunAll();
  void EndCalls();

  World& world_;
  Medium& medium_;
  Clock* const clock_;
  const std::unique_ptr<ServerStore> cord_;
  std::unique_ptr<Leadership> leadership_;
  std::unique_ptr<FencedStore> fenced_;
  testing::FaultPlan blob_faults_;
  std::unique_ptr<CollectableBlobStore> blobs_;
  ServerMetrics metrics_;
  std::vector<Lane> lanes_;
  std::vector<const Lane*> running_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Collector> collector_;
  LiveCalls calls_;
  SimGuard guard_{clock_};
  ServiceEnv env_;
  std::unique_ptr<JobServiceImpl> jobs_;
  std::unique_ptr<WorkerServiceImpl> workers_;
  std::map<int64_t, std::shared_ptr<OpenCall>> open_;
  int64_t last_call_ = 0;
  bool alive_ = true;
  absl::Duration paused_until_ = absl::ZeroDuration();
};

}  // namespace lwq::simulation
