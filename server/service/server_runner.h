// Runs servers for as long as the process is to live: one, alone on its store; or on a store that
// several share, one each time that this process is the leader, and none while it stands by.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/metrics/http_endpoint.h"
#include "base/metrics/process_metrics.h"
#include "base/mutex.h"
#include "server/service/server.h"
#include "server/store/leadership.h"

namespace lwq {

struct RunnerOptions {
  ServerOptions server;
  LeaderOptions leader;  // of a shared store
  // For so long a shared store that is not there is waited for at the start.
  absl::Duration store_wait = absl::Seconds(60);
  Clock* clock = Clock::Real();
  // Called when a server serves; an error ends Run.
  std::function<absl::Status(const Server&)> on_ready = [](const Server&) {
    return absl::OkStatus();
  };
  // Called when the last one begins to drain.
  std::function<void()> on_last_drain = [] {};
};

class ServerRunner {
 public:
  explicit ServerRunner(RunnerOptions options) : options_(std::move(options)) {}

  // Returns when it was stopped, or a drain was asked for by RPC. While it stands by, only the
  // metrics' address answers: alive, and not ready; so it does while a shared store is waited for
  // at the start, for `store_wait`. Errors are those of OpenStore, OpenBlobStore
  // and Server::Start. A leader that has lost its term drains, drops its state and stands by again.
  absl::Status Run();
  // From any thread.
  void Stop();

 private:
  // CANCELLED when it was stopped before the store was there.
  absl::StatusOr<std::unique_ptr<Store>> OpenStoreOnceThere();
  absl::StatusOr<std::unique_ptr<HttpEndpoint>> StandBy();
  absl::Status RunShared(Store& store);
  absl::Status Serve(std::unique_ptr<Store> store, Leadership* leadership);
  void RequestDrain();
  bool stopping() const;

  const RunnerOptions options_;
  // Of one that stands by only what its process takes, so that restarts of it are seen.
  Metrics standby_metrics_;
  ProcessMetrics process_{standby_metrics_};
  mutable Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Server* server_ ABSL_GUARDED_BY(mu_) = nullptr;  // the one that serves
};

}  // namespace lwq
