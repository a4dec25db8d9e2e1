#include "client/embedded.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/private_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/process.h"
#include "client/supervisor.h"

namespace lwq::client {
namespace {

constexpr absl::Duration kStartLimit = absl::Seconds(60);
constexpr absl::Duration kStopLimit = absl::Seconds(40);
constexpr absl::Duration kUnusedLimit = absl::Seconds(10);  // for commands that are about to end
constexpr size_t kMostSocketBytes = 107;
constexpr int64_t kTailBytes = 1500;

// A directory of this user's alone for sockets whose path would be too long.
absl::StatusOr<std::string> ShortRuntimeDirectory(const std::string& data_directory) {
  const char* runtime = ::getenv("XDG_RUNTIME_DIR");
  std::string base = runtime != nullptr && *runtime != '\0' ? JoinPath(runtime, "lwq")
                                                            : absl::StrCat("/tmp/lwq-", ::getuid());
  if (base.size() + 32 > kMostSocketBytes) base = absl::StrCat("/tmp/lwq-", ::getuid());
  if (::mkdir(base.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", base));
  }
  struct stat info;
  if (::lstat(base.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::getuid() ||
      (info.st_mode & 077) != 0) {
    return Failure(reasons::kRuntimeDirectory,
                   absl::StrCat(base,
                                " is not a directory of this user alone (mode "
                                "0700); set XDG_RUNTIME_DIR to one that is"));
  }
  return JoinPath(base, Sha256Hex(data_directory).substr(0, 16));
}

// A store and the files of a start are made within it; with less nothing is begun, since a process
// cannot even write down why it ended.
constexpr int64_t kFewestFreeBytes = int64_t{1} << 20;

absl::Status CheckRoomToStart(const EmbeddedPaths& paths) {
  struct statvfs disk;
  if (::statvfs(paths.data.c_str(), &disk) != 0) return absl::OkStatus();
  const auto room = static_cast<int64_t>(disk.f_frsize) * static_cast<int64_t>(disk.f_bavail);
  if (room >= kFewestFreeBytes) return absl::OkStatus();
  return Failure(reasons::kStorageFull,
                 absl::StrCat("the disk of the data directory ", paths.data, " has ", room,
                              " bytes free, and a server needs ", kFewestFreeBytes, " to start"));
}

absl::Status GaveUp(const EmbeddedPaths& paths) {
  LWQ_RETURN_IF_ERROR(CheckRoomToStart(paths));  // what else is missing has room to be said
  const absl::StatusOr<std::string> why = ReadFile(paths.failed_file, 64 << 10);
  return Failure(
      reasons::kEmbeddedStopped,
      why.ok() ? absl::StrCat("the embedded server and worker were given up: ", *why)
               : absl::StrCat("the embedded server and worker stopped; see ", paths.supervisor_log,
                              "\n", LogTail(paths.supervisor_log, kTailBytes)));
}

absl::Status MakeRunDirectory(const EmbeddedPaths& paths) {
  LWQ_RETURN_IF_ERROR(MakePrivateDirectory(paths.data));
  if (!IsEmbeddedRunning(paths)) LWQ_RETURN_IF_ERROR(CheckRoomToStart(paths));
  LWQ_RETURN_IF_ERROR(MakeDirectories(paths.run));
  if (::access(paths.run.c_str(), W_OK) == 0) return absl::OkStatus();
  return Failure(reasons::kDataDirectory,
                 absl::StrCat("the data directory ", paths.run, " cannot be written"));
}

std::vector<ChildSpec> Children(const EmbeddedPaths& paths, const std::string& binaries,
                                const EmbeddedOptions& options) {
  ChildSpec server;
  server.name = "the server";
  server.argv = {JoinPath(binaries, "lwq-server"), "--listen", paths.address, "--data-dir",
                 paths.server_data, "--ready-file", paths.ready_file,
                 // Worker and server share a machine: a lease that was lost with a killed server or
                 // a message is found after seconds, not after the half minute that networks need.
                 "--lease-ttl", "10", "--heartbeat", "2"};
  server.log_path = paths.server_log;
  server.ready_file = paths.ready_file;
  ChildSpec worker;
  worker.name = "the worker";
  worker.argv = {JoinPath(binaries, "lwq-worker"), "--server", paths.address, "--work-dir",
                 paths.worker_data, "--worker-id", "embedded", "--server-blobs",
                 JoinPath(paths.server_data, "blobs"),
                 // One's own models on one's own machine; and if the worker crashes, it is started
                 // again.
                 "--task-isolation", "none"};
  if (!options.device.empty()) {
    worker.argv.insert(worker.argv.end(), {"--device", options.device});
  }
  if (!options.threads.empty()) {
    worker.argv.insert(worker.argv.end(), {"--threads", options.threads});
  }
  if (!options.memory_bytes.empty()) {
    worker.argv.insert(worker.argv.end(), {"--memory", options.memory_bytes});
  }
  worker.log_path = paths.worker_log;
  worker.start_after = paths.ready_file;
  return {server, worker};
}

volatile sig_atomic_t stop_requested = 0;
void RequestStop(int) { stop_requested = 1; }

}  // namespace

absl::StatusOr<EmbeddedPaths> EmbeddedPaths::Of(const std::string& data_directory) {
  EmbeddedPaths paths;
  paths.data = data_directory;
  paths.run = JoinPath(data_directory, "run");
  paths.server_data = JoinPath(data_directory, "server");
  paths.worker_data = JoinPath(data_directory, "worker");
  paths.downloads = JoinPath(data_directory, "downloads");
  paths.socket = JoinPath(paths.run, "lwq.sock");
  if (paths.socket.size() > kMostSocketBytes) {
    LWQ_ASSIGN_OR_RETURN(paths.socket, ShortRuntimeDirectory(data_directory));
  }
  paths.address = absl::StrCat("unix:", paths.socket);
  paths.server_log = JoinPath(paths.run, "server.log");
  paths.worker_log = JoinPath(paths.run, "worker.log");
  paths.supervisor_log = JoinPath(paths.run, "supervisor.log");
  paths.ready_file = JoinPath(paths.run, "server.json");
  paths.start_lock = JoinPath(paths.run, "start.lock");
  paths.users_lock = JoinPath(paths.run, "users.lock");
  paths.supervisor_lock = JoinPath(paths.run, "supervisor.lock");
  paths.supervisor_pid = JoinPath(paths.run, "supervisor.pid");
  paths.keep_file = JoinPath(paths.run, "keep");
  paths.failed_file = JoinPath(paths.run, "failed.txt");
  return paths;
}

absl::StatusOr<std::string> DataDirectory(const std::string& flag) {
  std::string path = flag;
  const char* state = ::getenv("XDG_STATE_HOME");
  const char* home = ::getenv("HOME");
  if (path.empty() && state != nullptr && *state == '/') path = JoinPath(state, "lwq");
  if (path.empty() && home != nullptr && *home == '/') path = JoinPath(home, ".local/state/lwq");
  if (path.empty()) {
    return InvalidFailure(reasons::kDataDirectory.name,
                          "neither HOME nor XDG_STATE_HOME is set; give --data-dir DIRECTORY");
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
  std::string normal = absolute.lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

bool IsEmbeddedRunning(const EmbeddedPaths& paths) {
  return FileLock::IsHeld(paths.supervisor_lock);
}

absl::StatusOr<std::unique_ptr<Embedded>> Embedded::Start(
    const std::string& data_directory, const EmbeddedOptions& options,
    const std::function<absl::Status()>& interrupted) {
  LWQ_ASSIGN_OR_RETURN(EmbeddedPaths paths, EmbeddedPaths::Of(data_directory));
  LWQ_RETURN_IF_ERROR(MakeRunDirectory(paths));
  // Waits for a supervisor that is about to leave: it holds this lock exclusively then.
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> use,
                       FileLock::Acquire(paths.users_lock, FileLock::Mode::kShared, kStopLimit));
  LWQ_ASSIGN_OR_RETURN(
      const std::unique_ptr<FileLock> starting,
      FileLock::Acquire(paths.start_lock, FileLock::Mode::kExclusive, 2 * kStartLimit));
  std::unique_ptr<Embedded> embedded(new Embedded(std::move(paths), std::move(use)));
  if (!IsEmbeddedRunning(embedded->paths_)) {
    LWQ_RETURN_IF_ERROR(embedded->StartSupervisor(data_directory, options));
    embedded->started_here_ = true;
  }
  LWQ_RETURN_IF_ERROR(embedded->WaitReady(interrupted));
  return embedded;
}

absl::Status Embedded::StartSupervisor(const std::string& data_directory,
                                       const EmbeddedOptions& options) {
  LWQ_RETURN_IF_ERROR(RemoveAll(paths_.failed_file));
  LWQ_RETURN_IF_ERROR(RemoveAll(paths_.keep_file));
  LWQ_RETURN_IF_ERROR(RemoveAll(paths_.ready_file));
  LWQ_ASSIGN_OR_RETURN(const std::string binaries, OwnDirectory());
  ProcessOptions process;
  process.argv = {JoinPath(binaries, "lwqctl"), "supervise", "--data-dir", data_directory};
  if (!options.device.empty()) {
    process.argv.insert(process.argv.end(), {"--device", options.device});
  }
  if (!options.threads.empty()) {
    process.argv.insert(process.argv.end(), {"--threads", options.threads});
  }
  if (!options.memory_bytes.empty()) {
    process.argv.insert(process.argv.end(), {"--memory", options.memory_bytes});
  }
  process.log_path = paths_.supervisor_log;
  process.new_session = true;
  LWQ_RETURN_IF_ERROR(StartProcess(process).status());
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!IsEmbeddedRunning(paths_)) {
    if (FileExists(paths_.failed_file) || absl::Now() > deadline) return GaveUp(paths_);
    absl::SleepFor(absl::Milliseconds(10));
  }
  return absl::OkStatus();
}

absl::Status Embedded::WaitReady(const std::function<absl::Status()>& interrupted) {
  ClientOptions options;
  options.address = paths_.address;
  options.call_timeout = absl::Seconds(5);
  options.retry_for = absl::ZeroDuration();
  Client client(options);
  const absl::Time deadline = absl::Now() + kStartLimit;
  absl::Status last = absl::UnavailableError("the server did not start listening");
  while (absl::Now() < deadline) {
    if (interrupted) LWQ_RETURN_IF_ERROR(interrupted());
    LWQ_RETURN_IF_ERROR(CheckAlive());
    if (FileExists(paths_.ready_file)) {
      const absl::StatusOr<v1::ServerInfo> info = client.GetServerInfo();
      if (info.ok() && info->live_workers() > 0) return absl::OkStatus();
      last = info.ok() ? absl::UnavailableError("no worker has registered") : info.status();
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return Failure(reasons::kEmbeddedNotReady,
                 absl::StrCat("the embedded server and worker were not ready within ",
                              absl::FormatDuration(kStartLimit), ": ", last.message(), "; see ",
                              paths_.server_log, " and ", paths_.worker_log));
}

bool Embedded::is_kept() const { return FileExists(paths_.keep_file); }

absl::Status Embedded::CheckAlive() const {
  return IsEmbeddedRunning(paths_) ? absl::OkStatus() : GaveUp(paths_);
}

absl::Status Embedded::Keep() {
  return WriteFileAtomically(paths_.keep_file, "kept by lwqctl up\n");
}

void Embedded::Release() {
  use_.reset();
  if (is_kept()) return;
  const absl::Time deadline = absl::Now() + kStopLimit;
  while (IsEmbeddedRunning(paths_) && absl::Now() < deadline) {
    // Held, but not exclusively by a leaving supervisor: other commands use the pair and stop it.
    const bool free =
        FileLock::Acquire(paths_.users_lock, FileLock::Mode::kExclusive, absl::ZeroDuration()).ok();
    if (!free && !FileLock::IsHeld(paths_.users_lock)) return;
    absl::SleepFor(absl::Milliseconds(50));
  }
}

absl::Status StopEmbedded(const std::string& data_directory, bool force) {
  LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, EmbeddedPaths::Of(data_directory));
  if (!IsEmbeddedRunning(paths)) {
    return Failure(reasons::kNotRunning,
                   absl::StrCat("no server and worker run on ", data_directory));
  }
  // Held to the end: commands that come meanwhile wait and start a pair of their own. Nothing is
  // changed before it is had, so that what is refused does not happen later either.
  const absl::StatusOr<std::unique_ptr<FileLock>> unused = FileLock::Acquire(
      paths.users_lock, FileLock::Mode::kExclusive, force ? absl::ZeroDuration() : kUnusedLimit);
  if (!unused.ok() && !force) {
    return Failure(reasons::kInUse,
                   absl::StrCat("commands still use the server and worker on ", data_directory,
                                FileExists(paths.keep_file) ? "" : ", which stop with the last",
                                "; --force stops them now"));
  }
  LWQ_RETURN_IF_ERROR(RemoveAll(paths.keep_file));
  int pid = 0;
  const absl::StatusOr<std::string> text = ReadFile(paths.supervisor_pid, 64);
  if (text.ok() && absl::SimpleAtoi(*text, &pid) && pid > 1) ::kill(pid, SIGTERM);
  const absl::Time deadline = absl::Now() + kStopLimit;
  while (IsEmbeddedRunning(paths)) {
    if (absl::Now() > deadline) {
      return Failure(
          reasons::kInUse,
          absl::StrCat("the server and worker on ", data_directory, " did not end within ",
                       absl::FormatDuration(kStopLimit), "; see ", paths.supervisor_log));
    }
    absl::SleepFor(absl::Milliseconds(50));
  }
  return absl::OkStatus();
}

absl::Status RunSupervisor(const std::string& data_directory, const EmbeddedOptions& options) {
  LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, EmbeddedPaths::Of(data_directory));
  // Others look at the lock for an instant; only another supervisor keeps it.
  LWQ_ASSIGN_OR_RETURN(
      const std::unique_ptr<FileLock> running,
      FileLock::Acquire(paths.supervisor_lock, FileLock::Mode::kExclusive, absl::Seconds(2)));
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(paths.supervisor_pid, absl::StrCat(::getpid(), "\n")));
  for (const std::string& directory : {paths.server_data, paths.worker_data}) {
    LWQ_RETURN_IF_ERROR(MakePrivateDirectory(directory));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string binaries, OwnDirectory());
  struct sigaction action = {};
  action.sa_handler = RequestStop;
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);

  std::unique_ptr<FileLock> unused;
  SupervisorOptions supervise;
  supervise.wanted = [&] {
    if (stop_requested != 0) return false;
    if (FileExists(paths.keep_file)) return true;
    absl::StatusOr<std::unique_ptr<FileLock>> alone =
        FileLock::Acquire(paths.users_lock, FileLock::Mode::kExclusive, absl::ZeroDuration());
    if (!alone.ok()) return true;
    // Kept to the end, so that a new command waits until this pair is gone.
    unused = *std::move(alone);
    return false;
  };
  Supervisor supervisor(supervise, Children(paths, binaries, options));
  const absl::Status status = supervisor.Run();
  if (!status.ok()) {
    LWQ_RETURN_IF_ERROR(WriteFileAtomically(paths.failed_file, status.message()));
  }
  return status;
}

}  // namespace lwq::client
