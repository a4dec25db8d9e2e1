// lwq-server: flags, start, drain. Exit codes: 0 drained, 70 internal, 74 storage, 78
// configuration.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/listener.h"
#include "base/settings.h"
#include "base/status_macros.h"
#include "server/backup_command.h"
#include "server/dispatch/tenant_options.h"
#include "server/service/server_runner.h"
#include "server/store_command.h"

namespace lwq {
namespace {

constexpr int kExitInternal = 70;
constexpr int kExitIo = 74;
constexpr int kExitConfiguration = 78;
constexpr absl::Duration kWatchdogGrace = absl::Seconds(10);

int ExitCodeOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == reasons::kStoreLocked.name || reason == reasons::kSchemaTooNew.name ||
      reason == reasons::kSchemaChanged.name || reason == reasons::kStoreCorrupt.name ||
      reason == reasons::kAddressInUse.name || absl::IsInvalidArgument(status)) {
    return kExitConfiguration;
  }
  return absl::IsInternal(status) ? kExitInternal : kExitIo;
}

// Handles SIGTERM and SIGINT on a thread of its own; a second one ends the process at once.
void HandleSignals(ServerRunner* runner, sigset_t signals) {
  std::thread([runner, signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    runner->Stop();
    sigwait(&signals, &signal);
    _exit(kExitInternal);
  }).detach();
}

absl::Status WriteReadyFile(const std::string& path, const Server& server) {
  const nlohmann::json ready = {{"pid", ::getpid()},
                                {"address", server.address()},
                                {"metrics_address", server.metrics_address()}};
  return WriteFileAtomically(path, ready.dump() + "\n");
}

absl::Status TellReady(const Server& server, const std::string& ready_file) {
  if (!ready_file.empty()) {
    absl::Status written = WriteReadyFile(ready_file, server);
    if (!written.ok()) return Annotate(written, "writing the ready file");
  }
  spdlog::info("ready: serving on {}{}{}", server.address(),
               server.metrics_address().empty() ? "" : ", metrics on ", server.metrics_address());
  return absl::OkStatus();
}

// Where it runs and where it listens: the same after a restart, and nobody else's at one time.
std::string HolderOf(const ServerOptions& options) {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  return absl::StrCat(host, "/", options.listen);
}

// 0: for ever.
absl::Duration Days(double days) {
  return days > 0 ? absl::Hours(24 * days) : absl::InfiniteDuration();
}

int Run(const ServerOptions& options, absl::Duration store_wait, const std::string& ready_file) {
  // Before any thread is made, so that all of them leave these signals to the one that waits.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  RaiseDescriptorLimit();
  RunnerOptions runner_options{.server = options};
  runner_options.store_wait = store_wait;
  runner_options.leader.holder = HolderOf(options);
  runner_options.on_ready = [&](const Server& server) { return TellReady(server, ready_file); };
  runner_options.on_last_drain = [budget = options.drain_budget] {
    spdlog::info("draining");
    std::thread([budget] {
      std::this_thread::sleep_for(absl::ToChronoMilliseconds(budget + kWatchdogGrace));
      _exit(kExitInternal);
    }).detach();
  };
  ServerRunner runner(std::move(runner_options));
  HandleSignals(&runner, signals);
  absl::Status status = runner.Run();
  if (!ready_file.empty()) RemoveAll(ready_file).IgnoreError();
  if (status.ok()) {
    spdlog::info("drained");
  } else {
    spdlog::error("lwq-server cannot go on: {} ({})", LogSafe(status.message()), ReasonOf(status));
  }
  spdlog::shutdown();
  // The signal thread still waits; nothing of the server is left for it to touch.
  _exit(status.ok() ? 0 : ExitCodeOf(status));
}

// The flags as they are read, in the units that they are given in.
struct Flags {
  ServerOptions server;
  std::string ready_file, log_format = "text", log_level = "info";
  std::optional<std::string> audit_log;
  std::vector<std::string> tenants;
  double lease_ttl = 30, heartbeat = 10, stall = 600, drain = 60, gone = 3600;  // seconds
  double store_wait = 60;                                                       // seconds
  double keep_jobs = 0, keep_artifacts = 0, keep_cache = 30;                    // days
  double grace = 3600;                                                          // seconds
};

void AddPlaces(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.server.listen,
                 "unix:/path, or host:port (elsewhere than on this machine with --tls-*)")
      ->required();
  app.add_option("--data-dir", flags.server.data_directory, "folder of the store and the blobs")
      ->required();
  app.add_option("--store", flags.server.store_url,
                 "where records are kept: sqlite:FOLDER (default: the data directory) or "
                 "postgresql://USER@HOST/DATABASE");
  app.add_option("--blobs", flags.server.blob_url,
                 "where blobs are kept: FOLDER (default: in the data directory) or "
                 "s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=R");
  app.add_option("--metrics-listen", flags.server.metrics_listen,
                 "host:port of /metrics, /livez and /readyz; none without it");
  app.add_option("--model-root", flags.server.model_roots,
                 "models may lie under these folders only (repeatable; default: anywhere)");
  app.add_option("--ready-file", flags.ready_file,
                 "JSON {pid, address, metrics_address} once it serves");
}

// Who is let in, and what is kept of what they did.
void AddCallers(CLI::App& app, Flags& flags) {
  app.add_option("--tls-cert", flags.server.tls.cert_file,
                 "PEM file of the server's certificate; read again when it is renewed");
  app.add_option("--tls-key", flags.server.tls.key_file, "PEM file of its key");
  app.add_option("--tls-client-ca", flags.server.tls.ca_file,
                 "PEM file of the authority whose certificates clients and workers must have; this "
                 "or tokens are needed to listen elsewhere than on this machine");
  app.add_flag("--tokens", flags.server.takes_tokens,
               "callers may show a token of `lwqctl token create`, and need no certificate then");
  app.add_option("--admin-token-file", flags.server.admin_token_file,
                 "file with an admin's token, made if it is not there: takes tokens, and makes the "
                 "first ones");
  app.add_option("--calls-per-second", flags.server.caller_limits.calls_per_second,
                 "that one caller that is no worker may make on average; 0: any number")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--tenant", flags.tenants,
                 "a tenant's share and quotas (repeatable; * for all that are not named): "
                 "NAME:weight=2:running=8:queued=100:bytes=10GiB, each part as wanted; without it "
                 "all have equal shares and no quotas")
      ->check([](const std::string& text) {
        return std::string(ParseTenantOptions(text).status().message());
      });
  app.add_option("--audit-log", flags.audit_log,
                 "file of JSON lines that say who changed what, or - for stdout; \"\": none "
                 "(default: audit.jsonl in the data directory, where callers are known)");
}

void AddLogs(CLI::App& app, Flags& flags) {
  app.add_option("--log-format", flags.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off");
}

void AddTimes(CLI::App& app, Flags& flags) {
  app.add_option("--lease-ttl", flags.lease_ttl,
                 "seconds until a silent worker's tasks are taken back")
      ->check(CLI::Range(0.1, 3600.0));
  app.add_option("--heartbeat", flags.heartbeat, "seconds between heartbeats of a worker")
      ->check(CLI::Range(0.02, 600.0));
  app.add_option("--stall-timeout", flags.stall,
                 "seconds without progress until a task is taken back")
      ->check(CLI::Range(1.0, 86400.0));
  app.add_option("--worker-gone", flags.gone,
                 "seconds until a silent worker is forgotten, and until a task that no worker can "
                 "run fails its jobs")
      ->check(CLI::Range(1.0, 1e9));
  app.add_option("--store-wait", flags.store_wait,
                 "seconds for which a PostgreSQL that is not there is waited for at the start")
      ->check(CLI::Range(0.0, 86400.0));
  app.add_option("--drain-timeout", flags.drain,
                 "seconds that open calls get when the server stops")
      ->check(CLI::Range(0.1, 3600.0));
}

void AddRetention(CLI::App& app, Flags& flags) {
  app.add_option("--keep-jobs", flags.keep_jobs,
                 "days until an ended job is deleted, with its artifact; 0: never")
      ->check(CLI::Range(0.0, 36500.0));
  app.add_option("--keep-artifacts", flags.keep_artifacts,
                 "days until an artifact is deleted; 0: never")
      ->check(CLI::Range(0.0, 36500.0));
  app.add_option("--keep-cache", flags.keep_cache,
                 "days until a result that no job used again is forgotten; 0: never")
      ->check(CLI::Range(0.0, 36500.0));
  app.add_option(
         "--blob-grace", flags.grace,
         "seconds for which a blob that no record needs is kept after it was last asked for")
      ->check(CLI::Range(1.0, 1e7));
}

ServerOptions ServerOptionsOf(const Flags& flags) {
  ServerOptions options = flags.server;
  options.dispatch.lease_ttl_us = static_cast<int64_t>(flags.lease_ttl * 1e6);
  options.dispatch.heartbeat_us = static_cast<int64_t>(flags.heartbeat * 1e6);
  options.dispatch.stall_us = static_cast<int64_t>(flags.stall * 1e6);
  options.dispatch.gone_us = static_cast<int64_t>(flags.gone * 1e6);
  for (const std::string& tenant : flags.tenants) {
    const auto parsed = ParseTenantOptions(tenant);  // checked when it was read
    if (parsed.ok()) options.dispatch.tenants[parsed->first] = parsed->second;
  }
  options.retention.jobs = Days(flags.keep_jobs);
  options.retention.artifacts = Days(flags.keep_artifacts);
  options.retention.cache = Days(flags.keep_cache);
  options.retention.blob_grace = absl::Seconds(flags.grace);
  options.drain_budget = absl::Seconds(flags.drain);
  const bool knows_callers =
      !options.tls.ca_file.empty() || options.takes_tokens || !options.admin_token_file.empty();
  const std::string standard =
      knows_callers ? JoinPath(options.data_directory, "audit.jsonl") : std::string();
  options.audit_log = flags.audit_log.value_or(standard);
  return options;
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "store") {
    return lwq::RunStoreCommand(argc - 1, argv + 1);
  }
  if (argc > 1 && (std::string(argv[1]) == "backup" || std::string(argv[1]) == "restore")) {
    return lwq::RunBackupCommand(argc - 1, argv + 1);
  }
  CLI::App app(
      "lwq-server: the scheduler of lwq. See also the --help of lwq-server backup, restore and "
      "store");
  lwq::Flags flags;
  lwq::AddPlaces(app, flags);
  lwq::AddCallers(app, flags);
  lwq::AddLogs(app, flags);
  lwq::AddTimes(app, flags);
  lwq::AddRetention(app, flags);
  app.set_version_flag("--version", LWQ_VERSION);
  const std::optional<int> end =
      lwq::ParseWithSettings(app, argc, argv, "LWQ_SERVER_", lwq::kExitConfiguration);
  if (end) return *end;
  lwq::InitLogging("lwq-server",
                   flags.log_format == "json" ? lwq::LogFormat::kJson : lwq::LogFormat::kText,
                   flags.log_level);
  return lwq::Run(lwq::ServerOptionsOf(flags), absl::Seconds(flags.store_wait), flags.ready_file);
}
