#include "worker/agent.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/failure.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory_usage.h"
#include "base/reasons.h"
#include "base/retry.h"
#include "base/rpc/channel.h"
#include "base/rpc/connection_check.h"
#include "base/rpc/grpc_status.h"
#include "base/rpc/timeout.h"
#include "base/rpc/token.h"
#include "base/status_macros.h"
#include "records/option_records.h"
#include "worker/engine/model/families.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/score/scorer.h"
#include "worker/failure_proto.h"
#include "worker/local_engine.h"
#include "worker/runner/task_kinds.h"
#include "worker/task_label.h"

namespace lwq {
namespace {

constexpr int kPollSeconds = 20;
// For how long one that stops waits to be heard: a server that was stopped is followed by another
// one within that.
constexpr absl::Duration kStoppingPatience = absl::Seconds(5);

bool IsFull(const absl::Status& status) {
  return HasReason(status, reasons::kStoreFull) || HasReason(status, reasons::kStorageFull);
}

// Whether the server may take the same report later: it is away, busy, or its disk is full. What a
// task computed is not thrown away for that.
bool MayBeTakenLater(const absl::Status& status) { return IsRetryable(status) || IsFull(status); }

const char* OutcomeOf(const absl::Status& status) {
  return status.ok() ? "done" : absl::IsCancelled(status) ? "released" : "failed";
}

// Whether a server that refused a result for this needs to hear no more of the task.
bool KnowsOfFailure(const absl::Status& refused) {
  const std::string reason = ReasonOf(refused);
  return reason == reasons::kLeaseLost.name || reason == reasons::kOutputInvalid.name ||
         reason == reasons::kIncarnationSuperseded.name;
}

// While there is no connection, waits for one. gRPC gets on with connecting only while somebody
// waits for it: a worker that slept instead needed half a minute for a handshake of TLS.
Retry MakeRetry(Clock* clock, grpc::Channel* channel) {
  const auto sleep = [clock, channel](absl::Duration wait) {
    if (channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) {
      clock->SleepFor(wait);
    } else {
      channel->WaitForConnected(AfterNow(wait));
    }
  };
  return Retry({.is_transient = MayBeTakenLater}, clock, nullptr, sleep);
}

// The smaller one of those that are set. What a task is forecast to take counts host and device
// memory together, so each alone is a bound that holds.
int64_t Ceiling(int64_t asked, int64_t of_device) {
  return asked > 0 && of_device > 0 ? std::min(asked, of_device) : std::max(asked, of_device);
}

}  // namespace

Agent::Agent(AgentOptions options, std::unique_ptr<TaskEngine> engine,
             std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)),
      engine_(std::move(engine)),
      incarnation_(RandomHex(16)),
      channel_(std::move(channel)),
      stub_(v1::WorkerService::NewStub(channel_)),
      metrics_(engine_->device().name, options_.memory_bytes) {}

std::string Agent::ExposeMetrics() {
  if (!options_.tls.cert_file.empty()) {
    const absl::StatusOr<TlsFiles> files = ReadTlsFiles(options_.tls);
    metrics_.SetCertificateLife(
        files.ok() ? absl::ToDoubleSeconds(files->cert_expires - options_.clock->Now()) : -1);
  }
  return metrics_.Expose();
}

absl::StatusOr<std::unique_ptr<Agent>> Agent::Create(AgentOptions options, Device* device) {
  return Create(std::move(options), std::make_unique<LocalEngine>(device, /*measures=*/true));
}

absl::StatusOr<std::unique_ptr<Agent>> Agent::Create(AgentOptions options,
                                                     std::unique_ptr<TaskEngine> engine) {
  LWQ_ASSIGN_OR_RETURN(auto credentials, ClientCredentials(options.tls));
  LWQ_ASSIGN_OR_RETURN(credentials,
                       WithToken(std::move(credentials), options.token_file, options.server));
  auto channel = MakeChannel(options.server, std::move(credentials));
  options.memory_bytes = Ceiling(options.memory_bytes, engine->device().memory_limit_bytes);
  std::unique_ptr<Agent> agent(
      new Agent(std::move(options), std::move(engine), std::move(channel)));
  LWQ_ASSIGN_OR_RETURN(agent->blobs_,
                       BlobCache::Open(agent->options_.work_directory, agent->channel_,
                                       agent->options_.cache_bytes));
  agent->blobs_->ShareFilesWith(agent->options_.server_blobs);
  return agent;
}

v1::RegisterWorkerRequest Agent::Registration() const {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_device(engine_->device().name);
  request.set_device_description(engine_->device().description);
  request.set_numerics_class(engine_->device().numerics_class);
  request.set_build(LWQ_VERSION);
  request.set_memory_bytes(options_.memory_bytes);
  request.set_protocol(2);
  request.set_operations_per_second(engine_->device().operations_per_second);
  for (const TaskKindInfo& kind : RunnableKinds()) {
    v1::TaskKindVersion* known = request.add_kinds();
    known->set_kind(std::string(kind.name));
    known->set_version(kind.version);
  }
  for (const QuantizerDef* def : Quantizers()) {
    v1::Capability* capability = request.add_quantizers();
    capability->set_name(std::string(def->name));
    capability->set_help(std::string(def->help));
    capability->set_needs_calibration(def->needs_calibration());
    for (absl::string_view name : def->evidence) capability->add_evidence(std::string(name));
    OptionsToProto(def->options, capability->mutable_options());
    capability->set_edits_tensors(def->edits_tensors);
  }
  for (const ScorerDef* def : Scorers()) {
    v1::Capability* capability = request.add_scorers();
    capability->set_name(std::string(def->name));
    capability->set_help(std::string(def->help));
    capability->set_needs_calibration(def->needs_calibration());
    capability->set_needs_quantized(def->needs_quantized);
    capability->set_needs_hidden_states(def->needs_hidden_states);
    capability->set_gives_costs(def->gives_costs());
    capability->set_measures_all_formats(def->measures_all_formats);
    for (absl::string_view name : def->evidence) capability->add_evidence(std::string(name));
    OptionsToProto(def->options, capability->mutable_options());
  }
  for (const ModelFamilyDef* def : ModelFamilies()) request.add_families(std::string(def->name));
  return request;
}

absl::Status Agent::Register() {
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(10));
  v1::RegisterWorkerResponse response;
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(stub_->RegisterWorker(&context, Registration(), &response)));
  if (response.has_heartbeat_interval()) {
    heartbeat_interval_ = absl::Seconds(response.heartbeat_interval().seconds()) +
                          absl::Nanoseconds(response.heartbeat_interval().nanos());
  }
  spdlog::info("registered with {} as {}", options_.server, options_.worker_id);
  return absl::OkStatus();
}

absl::Status Agent::WarnOfSilence(const absl::Status& status) {
  constexpr absl::Duration kPatience = absl::Seconds(5);
  absl::Status why = absl::OkStatus();
  if (IsRetryable(status)) why = CheckConnection(options_.server, options_.tls, kPatience);
  // One that has been registered is set up rightly: the server's certificate may be renewed just
  // now.
  if (HasReason(why, reasons::kTlsInvalid) && !was_registered_) return why;
  spdlog::warn("no answer from {}, asking again until it comes: {}", options_.server,
               LogSafe((why.ok() ? status : why).ToString()));
  return absl::OkStatus();
}

absl::StatusOr<v1::LeaseTasksResponse> Agent::Poll() {
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(kPollSeconds + 10));
  v1::LeaseTasksRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_max_tasks(1);
  request.set_wait_seconds(static_cast<int>(absl::ToDoubleSeconds(
      std::clamp(options_.exit_when_idle, absl::Seconds(1), absl::Seconds(kPollSeconds)))));
  // Waited for in short steps, so that Stop() is noticed at once. With a queue and not a callback:
  // for callbacks gRPC keeps a thread that takes up to ten seconds to end.
  v1::LeaseTasksResponse response;
  grpc::Status status;
  grpc::CompletionQueue queue;
  const auto call = stub_->AsyncLeaseTasks(&context, request, &queue);
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  while (queue.AsyncNext(&tag, &ok, AfterNow(absl::Milliseconds(100))) ==
         grpc::CompletionQueue::TIMEOUT) {
    if (stopping_) context.TryCancel();
  }
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) continue;
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(status));
  return response;
}

absl::Status Agent::Run() {
  bool away = false;
  Retry retry = MakeRetry(options_.clock, channel_.get());
  absl::Duration last_work = options_.clock->Steady();
  while (!stopping_) {
    if (!registered_) {
      absl::Status status = Register();
      if (!status.ok()) {
        if (!MayBeTakenLater(status)) return Annotate(status, "registering with ", options_.server);
        if (!std::exchange(away, true)) {
          LWQ_RETURN_IF_ERROR(WarnOfSilence(status));
        }
        retry.Wait();
        continue;
      }
      registered_ = true;
      was_registered_ = true;
      away = false;
      retry.Reset();
    }
    absl::StatusOr<v1::LeaseTasksResponse> polled = Poll();
    if (!polled.ok()) {
      const std::string reason = ReasonOf(polled.status());
      if (reason == reasons::kIncarnationSuperseded.name) return polled.status();
      if (reason == reasons::kWorkerUnknown.name) registered_ = false;
      if (stopping_) break;
      if (!std::exchange(away, true)) {
        spdlog::warn("no work from {}, asking again until it comes: {}", options_.server,
                     LogSafe(polled.status().ToString()));
      }
      retry.Wait();
      continue;
    }
    if (std::exchange(away, false)) spdlog::info("{} is back", options_.server);
    retry.Reset();
    if (polled->leases().empty()) {
      engine_->Rest();
      if (options_.clock->Steady() - last_work < options_.exit_when_idle) continue;
      spdlog::info("no work for {}: ending", absl::FormatDuration(options_.exit_when_idle));
      break;
    }
    for (const v1::Lease& lease : polled->leases()) {
      if (stopping_ || !broken_.ok()) {
        Release(lease);
      } else {
        RunLease(lease);
      }
    }
    if (!broken_.ok()) return broken_;
    last_work = options_.clock->Steady();
  }
  if (registered_) SayThatItLeaves();
  return absl::OkStatus();
}

void Agent::RunLease(const v1::Lease& lease) {
  const std::string label = TaskLabel(lease);
  spdlog::info("begins {} attempt={}", label, lease.attempt());
  Failpoint("worker.leased");
  const absl::Duration start = options_.clock->Steady();
  absl::StatusOr<v1::TaskOutput> result = absl::InternalError("not run");
  MeasuredBlobs blobs(blobs_.get(), &metrics_, options_.clock);
  broken_ = engine_->Prepare(lease.spec());
  if (!broken_.ok()) return Release(lease);
  metrics_.TaskStarted();
  metrics_.SetChild(engine_->pid());
  {
    LeaseKeeper keeper(stub_.get(), options_.worker_id, incarnation_, lease, heartbeat_interval_,
                       options_.clock, engine_->pid());
    TaskRun run = {.lease = &lease, .blobs = &blobs, .memory_bytes = options_.memory_bytes};
    run.progress = [&](double fraction, const std::string& current) {
      if (stopping_) keeper.Cancel();
      return keeper.Progress(fraction, current);
    };
    blobs_->BeginTask([&](const std::string& what) { keeper.WaitsFor(what); });
    result = engine_->Run(run);
    broken_ = engine_->lost();
    const double seconds = absl::ToDoubleSeconds(options_.clock->Steady() - start);
    const int64_t now =
        engine_->pid() == 0 ? AnonymousMemoryBytes() : AnonymousMemoryBytesOf(engine_->pid());
    const int64_t peak = std::max(keeper.peak_anonymous_bytes(), now);
    metrics_.TaskEnded(lease.spec(), OutcomeOf(result.status()), seconds, peak);
    if (result.ok()) {
      spdlog::info("done {} seconds={:.2f}", label, seconds);
      result->set_seconds(seconds);
      result->set_peak_anonymous_bytes(peak);
    }
    // Reported while the lease is still kept alive: a slow server cannot lose it meanwhile.
    Report(lease, result, keeper);
  }
  if (absl::Status status = blobs_->EndTask(); !status.ok()) {
    spdlog::warn("tidying up: {}", LogSafe(status.message()));
  }
}

absl::Status Agent::Insist(const std::function<absl::Status(grpc::ClientContext*)>& send,
                           LeaseKeeper* keeper) {
  Retry retry = MakeRetry(options_.clock, channel_.get());
  std::optional<absl::Duration> give_up;  // once it stops
  while (true) {
    grpc::ClientContext context;
    SetTimeout(context, stopping_ ? absl::Seconds(5) : absl::Seconds(30));
    absl::Status status = send(&context);
    if (status.ok()) return status;
    if (stopping_) {
      const absl::Duration now = options_.clock->Steady();
      if (!give_up.has_value()) give_up = now + kStoppingPatience;
      if (now >= *give_up) return status;
    }
    if (keeper != nullptr && IsFull(status)) {
      keeper->WaitsFor(absl::StrCat("the server's storage is full: ", status.message()));
    }
    LWQ_RETURN_IF_ERROR(retry.BeforeRetry(status));
  }
}

absl::Status Agent::SendResult(const v1::Lease& lease, const v1::TaskOutput& output,
                               LeaseKeeper* keeper) {
  v1::CompleteTaskRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_task(lease.task());
  request.set_epoch(lease.epoch());
  request.set_completion_id(RandomHex(16));
  *request.mutable_output() = output;
  Failpoint("worker.before_report");
  absl::Status status = Insist(
      [&](grpc::ClientContext* context) {
        v1::CompleteTaskResponse response;
        return FromGrpcStatus(stub_->CompleteTask(context, request, &response));
      },
      keeper);
  Failpoint("worker.after_report");
  return status;
}

absl::Status Agent::SendFailure(const v1::Lease& lease, const absl::Status& why,
                                LeaseKeeper* keeper) {
  spdlog::warn("failed {}: {}", TaskLabel(lease), LogSafe(why.ToString()));
  v1::FailTaskRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_task(lease.task());
  request.set_epoch(lease.epoch());
  *request.mutable_failure() = FailureFromStatus(why);
  return Insist(
      [&](grpc::ClientContext* context) {
        v1::FailTaskResponse response;
        return FromGrpcStatus(stub_->FailTask(context, request, &response));
      },
      keeper);
}

void Agent::Report(const v1::Lease& lease, const absl::StatusOr<v1::TaskOutput>& result,
                   LeaseKeeper& keeper) {
  if (!result.ok() && absl::IsCancelled(result.status())) {
    spdlog::info("given up {}: {}", TaskLabel(lease), LogSafe(result.status().message()));
    Release(lease);
    return;
  }
  absl::Status status = result.status();
  if (result.ok()) {
    status = SendResult(lease, *result, &keeper);
    if (status.ok()) return;
    spdlog::warn("the server refused the result of {}: {}", TaskLabel(lease),
                 LogSafe(status.message()));
    if (KnowsOfFailure(status) || stopping_) return;
  }
  // A result that is refused is a failure too: unheard of, it would look like a lost worker.
  status = SendFailure(lease, status, &keeper);
  if (!status.ok()) {
    spdlog::warn("the server refused the report of {}: {}", TaskLabel(lease),
                 LogSafe(status.message()));
  }
}

void Agent::SayThatItLeaves() {
  v1::ReleaseTasksRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_leaving(true);
  grpc::ClientContext context;
  SetTimeout(context, kStoppingPatience);
  v1::ReleaseTasksResponse response;
  const absl::Status status = FromGrpcStatus(stub_->ReleaseTasks(&context, request, &response));
  if (!status.ok()) spdlog::info("leaving was not heard: {}", LogSafe(status.message()));
}

void Agent::Release(const v1::Lease& lease) {
  v1::ReleaseTasksRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  v1::HeldLease& held = *request.add_leases();
  held.set_task(lease.task());
  held.set_epoch(lease.epoch());
  const absl::Status status = Insist(
      [&](grpc::ClientContext* context) {
        v1::ReleaseTasksResponse response;
        return FromGrpcStatus(stub_->ReleaseTasks(context, request, &response));
      },
      /*keeper=*/nullptr);
  if (status.ok()) return;
  spdlog::warn("giving back {} was not heard: {}; its lease runs out instead", TaskLabel(lease),
               LogSafe(status.message()));
}

}  // namespace lwq
