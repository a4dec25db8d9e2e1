#include "server/service/server_runner.h"

#include "base/file.h"
#include "base/log.h"
#include "base/metrics/http_endpoint.h"
#include "base/metrics/process_metrics.h"
#include "base/status_macros.h"
#include "server/blob/open_blob_store.h"
#include "server/store/open_store.h"

namespace lwq {

absl::Status ServerRunner::Run() {
  const ServerOptions& server = options_.server;
  LWQ_RETURN_IF_ERROR(MakeDirectories(server.data_directory));
  LWQ_ASSIGN_OR_RETURN(
      std::unique_ptr<Store> store,
      OpenStore(server.store_url.empty() ? server.data_directory : server.store_url));
  return store->shared() ? RunShared(*store) : Serve(std::move(store), nullptr);
}

absl::Status ServerRunner::RunShared(Store& store) {
  LeaderOptions leader = options_.leader;
  // Of one that stands by only what its process takes, so that restarts of it are seen.
  Metrics standby_metrics;
  ProcessMetrics process(standby_metrics);
  while (!stopping()) {
    std::unique_ptr<HttpEndpoint> standby;
    if (!options_.server.metrics_listen.empty()) {
      HttpEndpoint::Handlers handlers;
      handlers.metrics = [&] {
        process.Update();
        return standby_metrics.Expose();
      };
      handlers.ready = [] { return false; };
      LWQ_ASSIGN_OR_RETURN(standby, HttpEndpoint::Start(options_.server.metrics_listen, handlers));
    }
    absl::StatusOr<std::unique_ptr<Leadership>> leadership =
        Leadership::Win(&store, options_.clock, leader, [this] { return stopping(); });
    if (absl::IsCancelled(leadership.status())) return absl::OkStatus();
    LWQ_RETURN_IF_ERROR(leadership.status());
    standby.reset();
    absl::Status served =
        Serve(std::make_unique<FencedStore>(&store, leadership->get()), leadership->get());
    if (!(*leadership)->lost()) return served;
    leader.is_restart = false;
  }
  return absl::OkStatus();
}

absl::Status ServerRunner::Serve(std::unique_ptr<Store> store, Leadership* leadership) {
  const std::string& url = options_.server.blob_url;
  LWQ_ASSIGN_OR_RETURN(
      std::unique_ptr<BlobStore> blobs,
      OpenBlobStore(url.empty() ? JoinPath(options_.server.data_directory, "blobs") : url));
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Server> server,
                       Server::Start(options_.server, {std::move(store), std::move(blobs)}));
  {
    MutexLock lock(&mu_);
    server_ = server.get();
    if (stopping_) server_->RequestDrain();
  }
  if (leadership != nullptr) leadership->OnLost([this] { RequestDrain(); });
  absl::Status ready = options_.on_ready(*server);
  if (ready.ok()) server->WaitForDrainRequest();
  {
    MutexLock lock(&mu_);
    server_ = nullptr;
  }
  if (leadership == nullptr || !leadership->lost()) options_.on_last_drain();
  server->Drain();
  return ready;
}

void ServerRunner::RequestDrain() {
  MutexLock lock(&mu_);
  if (server_ != nullptr) server_->RequestDrain();
}

void ServerRunner::Stop() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  RequestDrain();
}

bool ServerRunner::stopping() const {
  MutexLock lock(&mu_);
  return stopping_;
}

}  // namespace lwq
