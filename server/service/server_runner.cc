#include "server/service/server_runner.h"

#include <utility>

#include "absl/strings/match.h"
#include "base/file.h"
#include "base/log.h"
#include "base/private_path.h"
#include "base/status_macros.h"
#include "server/blob/open_blob_store.h"
#include "server/store/open_store.h"

namespace lwq {

absl::Status ServerRunner::Run() {
  const ServerOptions& server = options_.server;
  LWQ_RETURN_IF_ERROR(MakePrivateDirectory(server.data_directory));
  absl::StatusOr<std::unique_ptr<Store>> store = OpenStoreOnceThere();
  if (absl::IsCancelled(store.status())) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(store.status());
  return (*store)->shared() ? RunShared(**store) : Serve(*std::move(store), nullptr);
}

absl::StatusOr<std::unique_ptr<Store>> ServerRunner::OpenStoreOnceThere() {
  constexpr absl::Duration kEvery = absl::Seconds(1);
  const ServerOptions& server = options_.server;
  const std::string url = server.store_url.empty() ? server.data_directory : server.store_url;
  // A database of another machine may start at the same time; a disk of this one is there or not.
  const bool is_remote = absl::StartsWith(url, "postgres");
  const absl::Duration give_up = options_.clock->Steady() + options_.store_wait;
  std::unique_ptr<HttpEndpoint> standby;
  bool told = false;
  while (true) {
    absl::StatusOr<std::unique_ptr<Store>> store = OpenStore(url);
    if (stopping()) return absl::CancelledError("stopped");
    if (!is_remote || !absl::IsUnavailable(store.status()) || options_.clock->Steady() >= give_up) {
      return store;
    }
    if (standby == nullptr) {
      LWQ_ASSIGN_OR_RETURN(standby, StandBy());
    }
    if (!std::exchange(told, true)) {
      spdlog::warn("the store is not there, asking again for {}: {}",
                   absl::FormatDuration(options_.store_wait), LogSafe(store.status().message()));
    }
    options_.clock->SleepFor(kEvery);
  }
}

absl::StatusOr<std::unique_ptr<HttpEndpoint>> ServerRunner::StandBy() {
  if (options_.server.metrics_listen.empty()) return std::unique_ptr<HttpEndpoint>();
  HttpEndpoint::Handlers handlers;
  handlers.metrics = [this] {
    process_.Update();
    return standby_metrics_.Expose();
  };
  handlers.ready = [] { return false; };
  return HttpEndpoint::Start(options_.server.metrics_listen, handlers);
}

absl::Status ServerRunner::RunShared(Store& store) {
  LeaderOptions leader = options_.leader;
  while (!stopping()) {
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<HttpEndpoint> standby, StandBy());
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
