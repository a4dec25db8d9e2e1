// lwq-worker: flags and composition, nothing else. Exit codes: 0 stopped, 1 a model that was only
// looked at cannot be used or an artifact cannot be converted, 70 internal, 71 the device is lost
// and only a new process can use it, 75 another worker has this one's name, a second signal came or
// the GPU is not there, 78 configuration.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics/http_endpoint.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/settings.h"
#include "base/status_macros.h"
#include "worker/agent.h"
#include "worker/child_engine.h"
#include "worker/default_worker_id.h"
#include "worker/engine/device/device.h"
#include "worker/local_engine.h"
#include "worker/runner/convert_command.h"
#include "worker/runner/model_check.h"
#include "worker/sandbox.h"
#include "worker/task_child.h"

namespace {

constexpr int kExitInternal = 70;
constexpr int kExitDeviceLost = 71;
constexpr int kExitTemporary = 75;
constexpr int kExitConfiguration = 78;

lwq::Agent* running_agent = nullptr;

void HandleStop(int) {
  static volatile sig_atomic_t signalled = 0;
  if (signalled) _exit(kExitTemporary);  // a second signal means now
  signalled = 1;
  if (running_agent != nullptr) running_agent->Stop();
}

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return 0;
  if (lwq::ReasonOf(status) == lwq::reasons::kIncarnationSuperseded.name) return kExitTemporary;
  // Of a machine that has just started, or a card that is being reset: another start may find it.
  if (lwq::ReasonOf(status) == lwq::reasons::kDeviceMissing.name) return kExitTemporary;
  if (lwq::ReasonOf(status) == lwq::reasons::kDeviceLost.name) return kExitDeviceLost;
  const bool configured_wrongly =
      absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
      absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
  return configured_wrongly ? kExitConfiguration : kExitInternal;
}

// With `metrics_listen` not empty it serves /metrics, /livez and /readyz there.
absl::Status RunWorker(const lwq::AgentOptions& options, const lwq::ChildOptions& child,
                       bool isolated, const std::string& metrics_listen) {
  std::unique_ptr<lwq::Device> device;  // of this process
  std::unique_ptr<lwq::TaskEngine> engine;
  if (isolated) {
    lwq::KeepMemoryToItself();
    LWQ_ASSIGN_OR_RETURN(engine, lwq::ChildEngine::Start(child));
  } else {
    LWQ_ASSIGN_OR_RETURN(device, lwq::MakeDevice(child.device));
    engine = std::make_unique<lwq::LocalEngine>(device.get(), /*measures=*/true);
  }
  spdlog::info("device {}", engine->device().description);
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<lwq::Agent> agent,
                       lwq::Agent::Create(options, std::move(engine)));
  std::unique_ptr<lwq::HttpEndpoint> http;
  if (!metrics_listen.empty()) {
    lwq::HttpEndpoint::Handlers handlers;
    handlers.metrics = [&] { return agent->ExposeMetrics(); };
    handlers.ready = [&] { return agent->registered(); };
    LWQ_ASSIGN_OR_RETURN(http, lwq::HttpEndpoint::Start(metrics_listen, std::move(handlers)));
    spdlog::info("metrics on {}", http->address());
  }
  running_agent = agent.get();
  struct sigaction action = {};
  action.sa_handler = HandleStop;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  absl::Status status = agent->Run();
  running_agent = nullptr;
  return status;
}

int ConvertOnly(const lwq::ConvertRequest& request) {
  std::string json;
  const bool done = lwq::RunConvert(request, &json);
  std::fputs(json.c_str(), stdout);
  return done ? 0 : 1;
}

void AddConvert(CLI::App& app, lwq::ConvertRequest& request) {
  app.add_option("--convert", request.source,
                 "write the artifact in this directory as another kind, say what was done in one "
                 "line of JSON, and end")
      ->configurable(false);
  app.add_option("--convert-to", request.format, "compressed-tensors, gguf or gptq")
      ->configurable(false);
  app.add_option("--convert-out", request.directory, "the new artifact's directory")
      ->configurable(false);
  app.add_flag("--round-scales", request.round_scales,
               "round scales that the other kind cannot hold, instead of refusing")
      ->configurable(false);
}

std::string WorkerIdOfThisProcess() {
  char host[256] = "worker";
  gethostname(host, sizeof host - 1);
  return lwq::DefaultWorkerId(host, getpid());
}

int CheckModelOnly(const std::string& directory) {
  const std::vector<lwq::ModelCheck> checks = lwq::CheckModel(directory);
  std::fputs(lwq::ModelChecksJson(checks).c_str(), stdout);
  return lwq::AllPassed(checks) ? 0 : 1;
}

void AddConnection(CLI::App& app, lwq::AgentOptions& options) {
  app.add_option("--server", options.server,
                 "unix:/path/to/socket or host:port; a list of them finds the leader (required)");
  app.add_option("--tls-ca", options.tls.ca_file,
                 "PEM file of the authority of the server's certificate");
  app.add_option("--tls-cert", options.tls.cert_file, "PEM file of the worker's own certificate");
  app.add_option("--tls-key", options.tls.key_file, "PEM file of its key");
  app.add_option("--token-file", options.token_file,
                 "file of the token to show instead of a certificate; read again when it changes");
}

void AddTasks(CLI::App& app, lwq::ChildOptions& child, std::string& isolation) {
  app.add_option("--device", child.device.device, "cpu, cuda:N for the GPU of that number, or reference; auto is cpu")
      ->capture_default_str();
  app.add_option("--threads", child.device.num_threads, "compute threads; 0: all cores")
      ->check(CLI::Range(0, 1024));
  app.add_option("--task-isolation", isolation,
                 "process: tasks run in a process of their own, without rights that they do not "
                 "need, and one that crashes fails alone; none: in the worker's")
      ->check(CLI::IsMember({"process", "none"}))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], lwq::kTaskChildFlag) == 0) return lwq::RunTaskChild();
  CLI::App app("Runs lwq's tasks on one device: asks the server for work, computes, reports.");
  lwq::AgentOptions options;
  lwq::ChildOptions child;
  std::string metrics_listen, isolation = "process";
  double exit_when_idle = 0;
  AddConnection(app, options);
  app.add_option("--work-dir", options.work_directory, "local cache and scratch space (required)");
  app.add_option("--worker-id", options.worker_id,
                 "name that stays the same over restarts (default: host name and process id)");
  AddTasks(app, child, isolation);
  app.add_option("--memory", options.memory_bytes,
                 "ceiling of a task's memory, of a GPU's too (suffixes KiB, MiB, GiB); 0: none")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::NonNegativeNumber);
  app.add_option("--cache-size", options.cache_bytes, "local blob cache (suffixes KiB, MiB, GiB)")
      ->transform(CLI::AsSizeValue(false));
  app.add_option(
      "--server-blobs", options.server_blobs,
      "folder of the blobs of a server that runs here as this user: files are linked, not "
      "copied");
  app.add_option("--exit-when-idle", exit_when_idle,
                 "seconds without work after which it ends well; 0: never")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--metrics-listen", metrics_listen,
                 "host:port of /metrics, /livez and /readyz; none without it");
  app.add_option("--log-format", child.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--log-level", child.log_level, "trace, debug, info, warn or error");
  lwq::ConvertRequest convert;
  AddConvert(app, convert);
  std::string check_model;
  app.add_option("--check-model", check_model,
                 "look at a model directory, print what was found as JSON lines, and end")
      ->configurable(false);
  app.set_version_flag("--version", LWQ_VERSION);
  const std::optional<int> end =
      lwq::ParseWithSettings(app, argc, argv, "LWQ_WORKER_", kExitConfiguration);
  if (end) return *end;
  if (!check_model.empty()) return CheckModelOnly(check_model);
  if (!convert.source.empty()) return ConvertOnly(convert);
  if (options.server.empty() || options.work_directory.empty()) {
    std::fprintf(stderr, "--server and --work-dir are required; see --help\n");
    return kExitConfiguration;
  }
  lwq::InitLogging("lwq-worker",
                   child.log_format == "json" ? lwq::LogFormat::kJson : lwq::LogFormat::kText,
                   child.log_level);
  signal(SIGPIPE, SIG_IGN);
  if (exit_when_idle > 0) options.exit_when_idle = absl::Seconds(exit_when_idle);
  if (options.worker_id.empty()) options.worker_id = WorkerIdOfThisProcess();
  absl::Status status = lwq::CheckAddress(options.server);
  if (status.ok()) status = RunWorker(options, child, isolation == "process", metrics_listen);
  if (!status.ok()) spdlog::error("{}", lwq::LogSafe(status.ToString()));
  return ExitCodeOf(status);
}
