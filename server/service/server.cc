#include "server/service/server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics/http_endpoint.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/rpc/listener.h"
#include "base/rpc/timeout.h"
#include "base/status_macros.h"
#include "server/blob/open_blob_store.h"
#include "server/service/blob_service.h"
#include "server/service/builtin_dataset.h"
#include "server/service/job_service.h"
#include "server/service/listen_address.h"
#include "server/service/model_directory.h"
#include "server/service/model_service.h"
#include "server/service/token_service.h"
#include "server/service/uploads.h"
#include "server/service/validation.h"
#include "server/service/worker_service.h"
#include "server/store/open_store.h"

namespace lwq {
namespace {

constexpr int kTaskThreads = 16;  // as many leases and results are one commit
constexpr int kMaxQueued = 1024;
constexpr int kMaxQueuedFiles = 64;
constexpr absl::Duration kTick = absl::Milliseconds(250);
constexpr absl::Duration kReapInterval = absl::Seconds(1);
constexpr absl::Duration kUploadLife = absl::Hours(24);  // of one that nobody goes on with
constexpr absl::Duration kCollectEvery = absl::Hours(1);
// Who has not said what a client says first by then is cut off.
constexpr int kHandshakeTimeoutMs = 10'000;

using ExternalConnections = grpc::ServerBuilder::experimental_type::ExternalConnectionType;

void ApplySettings(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.SetDefaultCompressionAlgorithm(GRPC_COMPRESS_NONE);
}

absl::Status Register(const BuiltinDataset& builtin, Scheduler& scheduler) {
  LWQ_ASSIGN_OR_RETURN(const BlobId blob, scheduler.blobs().Put(builtin.text));
  v1::Dataset dataset;
  dataset.set_name(std::string(builtin.name));
  dataset.set_tenant(kEverybody);
  dataset.mutable_blob()->set_sha256(blob.sha256);
  dataset.mutable_blob()->set_size_bytes(blob.size_bytes);
  dataset.set_kind(v1::Dataset::TEXT);
  dataset.set_display_name(std::string(builtin.file));
  dataset.set_description(std::string(builtin.description));
  absl::StatusOr<v1::Dataset> existing = scheduler.GetDataset(dataset.name());
  if (existing.ok() && existing->blob().sha256() == blob.sha256 &&
      existing->tenant() == kEverybody) {
    return absl::OkStatus();
  }
  return PutDataset(scheduler, dataset);
}

std::map<std::string, TenantUse> UseOfTenants(const Scheduler& scheduler) {
  std::map<std::string, TenantUse> tenants;
  for (const auto& [name, bytes] : scheduler.tenant_bytes().All()) {
    tenants[name].stored_bytes = bytes;
  }
  scheduler.View([&](const DispatchState& state) {
    for (const auto& [name, counts] : state.tenants()) {
      TenantUse& use = tenants[name];
      use.running_jobs = counts.at_work + counts.held - counts.queued;
      use.queued_jobs = counts.queued;
      use.ready_tasks = state.ready().NumOf(name);
      use.leased_tasks = counts.leased;
    }
  });
  tenants.erase(kEverybody);  // what the server brings along
  return tenants;
}

}  // namespace

struct Server::State {
  explicit State(const ServerOptions& given) : options(given), metrics(given.dispatch.tenants) {}

  ServerOptions options;
  ServerMetrics metrics;
  std::unique_ptr<Store> store;
  std::unique_ptr<BlobStore> given_blobs;
  std::unique_ptr<CollectableBlobStore> blobs;
  std::unique_ptr<Executor> write, tasks, read, blob, beat, watch, files, cpu;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<Collector> collector;
  LiveCalls calls;
  std::unique_ptr<TokenRegistry> tokens;
  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<Guard> guard;
  std::unique_ptr<CallerLimits> limits;
  ServiceEnv env;
  std::unique_ptr<JobServiceImpl> jobs;
  std::unique_ptr<ModelServiceImpl> models;
  std::unique_ptr<DatasetServiceImpl> datasets;
  std::unique_ptr<ArtifactServiceImpl> artifacts;
  std::unique_ptr<BlobServiceImpl> blob_service;
  std::unique_ptr<WorkerServiceImpl> workers;
  std::unique_ptr<AdminServiceImpl> admin;
  std::unique_ptr<TokenServiceImpl> token_service;
  std::unique_ptr<AddressLock> address_lock;
  std::unique_ptr<ServerCertificates> certificates;  // null: no TLS
  std::unique_ptr<grpc::Server> grpc_server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<HttpEndpoint> http;
  std::string metrics_address;

  Mutex mu;
  CondVar changed;
  bool drain_requested ABSL_GUARDED_BY(mu) = false;
  bool stop_ticking ABSL_GUARDED_BY(mu) = false;
  bool drained ABSL_GUARDED_BY(mu) = false;
  std::thread ticker;

  absl::Status Open();
  absl::Status OpenGuard();
  absl::Status Listen();
  void TakeConnections();
  void Tick();
  void Reload();
  void SetGauges();
};

absl::Status Server::State::Open() {
  options.takes_tokens = options.takes_tokens || !options.admin_token_file.empty();
  const bool knows_clients = !options.tls.ca_file.empty() || options.takes_tokens;
  LWQ_RETURN_IF_ERROR(
      CheckListenAddress(options.listen, !options.tls.cert_file.empty() && knows_clients));
  LWQ_RETURN_IF_ERROR(MakeDirectories(options.data_directory));
  LWQ_ASSIGN_OR_RETURN(address_lock, AddressLock::Take(options.listen));
  LWQ_ASSIGN_OR_RETURN(env.model_roots, RealRoots(options.model_roots));
  if (store == nullptr) {
    LWQ_ASSIGN_OR_RETURN(store, OpenStore(options.data_directory));
  }
  if (given_blobs == nullptr) {
    LWQ_ASSIGN_OR_RETURN(given_blobs, OpenBlobStore(JoinPath(options.data_directory, "blobs")));
  }
  blobs = std::make_unique<CollectableBlobStore>(std::move(given_blobs),
                                                 options.retention.blob_grace, options.clock);
  const int cores = std::max(1u, std::thread::hardware_concurrency());
  write = std::make_unique<Executor>("write", 1, kMaxQueued);
  tasks = std::make_unique<Executor>("tasks", kTaskThreads, kMaxQueued);
  read = std::make_unique<Executor>("read", 4, kMaxQueued);
  blob = std::make_unique<Executor>("blob", 4 + std::min(cores, 12), kMaxQueued);
  beat = std::make_unique<Executor>("beat", 1, kMaxQueued);
  watch = std::make_unique<Executor>("watch", 2, kMaxQueued);
  files = std::make_unique<Executor>("files", 2, kMaxQueuedFiles);
  cpu = std::make_unique<Executor>("cpu", std::min(cores, 4), kMaxQueued);
  scheduler = std::make_unique<Scheduler>(store.get(), blobs.get(), options.clock, &metrics,
                                          cpu.get(), options.dispatch);
  collector = std::make_unique<Collector>(scheduler.get(), blobs.get(), options.retention);
  for (const BuiltinDataset& builtin : BuiltinDatasets()) {
    LWQ_RETURN_IF_ERROR(Register(builtin, *scheduler));
  }
  LWQ_RETURN_IF_ERROR(scheduler->Start());
  if (absl::Status status = CountUnfinished(*scheduler); !status.ok()) {
    spdlog::warn("counting unfinished uploads: {}", LogSafe(status.ToString()));
  }
  env.scheduler = scheduler.get();
  env.write = write.get();
  env.tasks = tasks.get();
  env.read = read.get();
  env.blob = blob.get();
  env.beat = beat.get();
  env.watch = watch.get();
  env.files = files.get();
  env.calls = &calls;
  env.data_directory = options.data_directory;
  env.start_time = options.clock->Now();
  env.request_drain = [this] {
    MutexLock lock(&mu);
    drain_requested = true;
    changed.SignalAll();
  };
  return OpenGuard();
}

absl::Status Server::State::OpenGuard() {
  if (options.takes_tokens) {
    tokens = std::make_unique<TokenRegistry>(store.get(), options.clock, options.admin_token_file);
    LWQ_RETURN_IF_ERROR(tokens->Load());
  }
  if (!options.audit_log.empty()) {
    LWQ_ASSIGN_OR_RETURN(audit, AuditLog::Open({.path = options.audit_log}, options.clock));
  }
  if (!options.tls.empty()) {
    using Clients = ServerCertificates::Clients;
    LWQ_ASSIGN_OR_RETURN(
        certificates,
        ServerCertificates::Load(
            options.tls, options.takes_tokens ? Clients::kMayHaveNone : Clients::kMustHaveOne));
  }
  // Whoever is asked for a certificate or a token is asked for a role.
  guard = std::make_unique<Guard>(!options.tls.ca_file.empty() || options.takes_tokens,
                                  tokens.get(), options.clock);
  env.guard = guard.get();
  if (guard->enforced()) {
    limits = std::make_unique<CallerLimits>(options.caller_limits, options.clock);
    env.limits = limits.get();
  }
  env.audit = audit.get();
  return absl::OkStatus();
}

absl::Status Server::State::Listen() {
  jobs = std::make_unique<JobServiceImpl>(env);
  models = std::make_unique<ModelServiceImpl>(env);
  datasets = std::make_unique<DatasetServiceImpl>(env);
  artifacts = std::make_unique<ArtifactServiceImpl>(env);
  blob_service = std::make_unique<BlobServiceImpl>(env);
  workers = std::make_unique<WorkerServiceImpl>(env);
  admin = std::make_unique<AdminServiceImpl>(env, collector.get());
  token_service = std::make_unique<TokenServiceImpl>(env, tokens.get());
  const auto credentials =
      certificates == nullptr ? grpc::InsecureServerCredentials() : certificates->Credentials();
  // It does not ask who calls.
  grpc::EnableDefaultHealthCheckService(!guard->enforced());
  LWQ_ASSIGN_OR_RETURN(listener, Listener::Open(options.listen));
  grpc::ServerBuilder builder;
  ApplySettings(builder);
  acceptor = builder.experimental().AddExternalConnectionAcceptor(ExternalConnections::FROM_FD,
                                                                  credentials);
  for (grpc::Service* service : std::initializer_list<grpc::Service*>{
           jobs.get(), models.get(), datasets.get(), artifacts.get(), blob_service.get(),
           workers.get(), admin.get(), token_service.get()}) {
    builder.RegisterService(service);
  }
  grpc_server = builder.BuildAndStart();
  if (grpc_server == nullptr) {
    return absl::InternalError("gRPC does not start a server; its own log says why");
  }
  TakeConnections();
  if (!options.metrics_listen.empty()) {
    HttpEndpoint::Handlers handlers;
    handlers.metrics = [this] {
      SetGauges();
      return metrics.Expose();
    };
    handlers.ready = [this] { return !scheduler->draining; };
    LWQ_ASSIGN_OR_RETURN(http, HttpEndpoint::Start(options.metrics_listen, std::move(handlers)));
    metrics_address = http->address();
  }
  ticker = std::thread([this] { Tick(); });
  return absl::OkStatus();
}

void Server::State::TakeConnections() {
  Listener::Handlers handlers;
  handlers.take = [this](int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = fd;
    acceptor->HandleNewConnection(&connection);
  };
  handlers.refuse = [this](const std::string& who) { metrics.ConnectionRefused(who); };
  listener->Start(std::move(handlers));
}

void Server::State::SetGauges() {
  std::map<std::string, int> by_state;
  DispatchCounts counts;
  scheduler->View([&](const DispatchState& state) {
    counts = state.counts();
    for (const v1::Worker& worker : WorkersOf(state, scheduler->Now())) {
      // One that was drained is away because somebody wants it to be.
      ++by_state[worker.cordoned()                      ? "cordoned"
                 : worker.state() == v1::Worker::LEFT   ? "left"
                 : worker.state() == v1::Worker::LOST   ? "lost"
                 : worker.state() == v1::Worker::SILENT ? "silent"
                 : worker.state() == v1::Worker::BUSY   ? "busy"
                                                        : "ready"];
    }
  });
  metrics.SetCounts(counts);
  metrics.SetWorkers(by_state);
  metrics.SetTenants(UseOfTenants(*scheduler));
  if (certificates != nullptr) {
    metrics.SetCertificateLife(
        absl::ToDoubleSeconds(certificates->expire_time() - options.clock->Now()));
  }
  metrics.SetQueued("commit", scheduler->num_waiting());
  metrics.SetBlobs(blobs->total_bytes(), blobs->total_count());
  if (const absl::StatusOr<int64_t> free = blobs->FreeBytes(); free.ok()) {
    metrics.SetFreeBlobBytes(*free);
  }
  for (const Executor* executor : {write.get(), tasks.get(), read.get(), blob.get(), beat.get(),
                                   watch.get(), files.get(), cpu.get()}) {
    metrics.SetQueued(executor->name(), executor->queued());
  }
}

void Server::State::Tick() {
  const absl::Duration reap_every =
      std::min(kReapInterval, absl::Microseconds(options.dispatch.lease_ttl_us) / 4);
  Clock& clock = *options.clock;
  absl::Duration next_reap = clock.Steady() + reap_every;
  absl::Duration next_collection = clock.Steady() + kCollectEvery;
  absl::Duration next_reload = clock.Steady() + options.reload_interval;
  while (true) {
    {
      const absl::Duration next_tick = clock.Steady() + kTick;
      MutexLock lock(&mu);
      while (!stop_ticking && clock.Steady() < next_tick) {
        clock.WaitFor(changed, &mu, next_tick - clock.Steady());
      }
      if (stop_ticking) return;
    }
    scheduler->Tick();
    scheduler->hints().Notify(kTickTopic);
    if (clock.Steady() >= next_reload) {
      next_reload = clock.Steady() + options.reload_interval;
      files->Post([this] { Reload(); });
    }
    if (clock.Steady() < next_reap) continue;
    next_reap = clock.Steady() + reap_every;
    write->Post([this] {
      absl::Status status = scheduler->Reap();
      if (!status.ok()) spdlog::warn("taking back leases: {}", LogSafe(status.ToString()));
    });
    if (clock.Steady() < next_collection) continue;
    next_collection = clock.Steady() + kCollectEvery;
    blob->Post([this] {
      absl::Status status = blobs->ExpireUploads(options.clock->Now() - kUploadLife).status();
      if (status.ok()) status = CountUnfinished(*scheduler);
      if (status.ok()) status = collector->Collect(/*dry_run=*/false).status();
      // One that somebody asked for by RPC does as well.
      if (status.ok() || scheduler->draining || HasReason(status, reasons::kCollectionRunning)) {
        return;
      }
      spdlog::warn("collecting: {}", LogSafe(status.ToString()));
    });
  }
}

// What cannot be used is told once or, of the admin's token, each time; the old goes on.
void Server::State::Reload() {
  if (certificates != nullptr) {
    const absl::StatusOr<bool> renewed = certificates->Reload();
    if (!renewed.ok()) {
      spdlog::error("going on with the old certificate: {}", LogSafe(renewed.status().message()));
      metrics.CertificateReloaded("refused");
    } else if (*renewed) {
      spdlog::info("the certificate was renewed");
      metrics.CertificateReloaded("renewed");
    }
  }
  if (tokens == nullptr) return;
  if (absl::Status status = tokens->ReloadAdminToken(); !status.ok()) {
    spdlog::error("going on with the old admin's token: {}", LogSafe(status.message()));
  }
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { Drain(); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      ServerParts parts) {
  auto server = std::unique_ptr<Server>(new Server(std::make_unique<State>(options)));
  server->state_->store = std::move(parts.store);
  server->state_->given_blobs = std::move(parts.blobs);
  LWQ_RETURN_IF_ERROR(server->state_->Open());
  LWQ_RETURN_IF_ERROR(server->state_->Listen());
  return server;
}

const std::string& Server::address() const { return state_->listener->address(); }
const std::string& Server::metrics_address() const { return state_->metrics_address; }

void Server::WaitForDrainRequest() {
  MutexLock lock(&state_->mu);
  while (!state_->drain_requested) state_->changed.Wait(&state_->mu);
}

void Server::RequestDrain() {
  MutexLock lock(&state_->mu);
  state_->drain_requested = true;
  state_->changed.SignalAll();
}

void Server::Drain() {
  State& s = *state_;
  {
    MutexLock lock(&s.mu);
    if (s.drained) return;
    s.drained = true;
  }
  if (s.scheduler != nullptr) s.scheduler->draining = true;
  if (s.grpc_server != nullptr) {
    if (auto* health = s.grpc_server->GetHealthCheckService()) health->SetServingStatus(false);
    s.calls.DrainAll();
    s.calls.WaitUntilNone(*s.options.clock, std::min(s.options.drain_budget, absl::Seconds(30)));
    s.listener->Stop();
    s.grpc_server->Shutdown(AfterNow(absl::Seconds(5)));
  }
  {
    MutexLock lock(&s.mu);
    s.stop_ticking = true;
    s.changed.SignalAll();
  }
  if (s.ticker.joinable()) s.ticker.join();
  s.http.reset();
  for (Executor* executor : {s.cpu.get(), s.write.get(), s.tasks.get(), s.read.get(), s.blob.get(),
                             s.beat.get(), s.watch.get(), s.files.get()}) {
    if (executor != nullptr) executor->Shutdown();
  }
  s.grpc_server.reset();
  s.address_lock.reset();
  s.collector.reset();
  s.scheduler.reset();
  s.store.reset();
}

}  // namespace lwq
