// The server and worker that lwqctl runs by itself: one pair per data directory, under a supervisor
// process, on a Unix socket. Every command that uses the pair holds a shared lock; the supervisor
// stops when nobody does, unless `lwqctl up` asked to keep it. Locks go with their process, so
// nothing is left behind by a crash.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/file_lock.h"

namespace lwq::client {

// Where things lie under a data directory.
struct EmbeddedPaths {
  // `data_directory` is absolute. The socket moves to a short directory of the user's own when its
  // path would be longer than the 107 bytes that a Unix socket may have.
  static absl::StatusOr<EmbeddedPaths> Of(const std::string& data_directory);

  std::string data;
  std::string run;
  std::string socket;
  std::string address;  // unix:<socket>
  std::string server_data;
  std::string worker_data;
  std::string downloads;
  std::string server_log, worker_log, supervisor_log;
  std::string ready_file;       // written by the server
  std::string start_lock;       // held while a pair is being started
  std::string users_lock;       // shared by every command that uses the pair
  std::string supervisor_lock;  // held by the supervisor
  std::string supervisor_pid;
  std::string keep_file;    // there: keep the pair without users
  std::string failed_file;  // why the supervisor gave up
};

// --data-dir, or $XDG_STATE_HOME/lwq, or ~/.local/state/lwq; made absolute.
absl::StatusOr<std::string> DataDirectory(const std::string& flag);

// The worker's share of the machine; empty: the worker's default.
struct EmbeddedOptions {
  std::string device;  // as lwq-worker's --device
  std::string threads;
  std::string memory_bytes;
};

// A running pair, in use by this process until destruction.
class Embedded {
 public:
  // Starts the pair or joins the one that runs, and waits until the server answers and a worker is
  // registered. `interrupted`, if set, is asked while waiting.
  static absl::StatusOr<std::unique_ptr<Embedded>> Start(
      const std::string& data_directory, const EmbeddedOptions& options,
      const std::function<absl::Status()>& interrupted);

  const EmbeddedPaths& paths() const { return paths_; }
  // Whether this call started the pair.
  bool started_here() const { return started_here_; }
  // Whether it outlives its users.
  bool is_kept() const;
  // OK while the supervisor lives; else why it gave up.
  absl::Status CheckAlive() const;
  // Keeps the pair after this process: `lwqctl up`.
  absl::Status Keep();
  // Gives up this use, and when that stops the pair waits for it.
  void Release();

  ~Embedded() = default;

 private:
  Embedded(EmbeddedPaths paths, std::unique_ptr<FileLock> use)
      : paths_(std::move(paths)), use_(std::move(use)) {}
  absl::Status StartSupervisor(const std::string& data_directory, const EmbeddedOptions& options);
  absl::Status WaitReady(const std::function<absl::Status()>& interrupted);

  const EmbeddedPaths paths_;
  std::unique_ptr<FileLock> use_;
  bool started_here_ = false;
};

// Stops a kept pair. `force`: also when commands use it. NOT_FOUND NOT_RUNNING when none runs;
// FAILED_PRECONDITION IN_USE when commands use it: all goes on then as before.
absl::Status StopEmbedded(const std::string& data_directory, bool force);

// Whether a pair runs there.
bool IsEmbeddedRunning(const EmbeddedPaths& paths);

// The supervisor process itself: `lwqctl supervise`, started by Start. Returns when nobody needs
// the pair, at SIGTERM, or when a child was given up.
absl::Status RunSupervisor(const std::string& data_directory, const EmbeddedOptions& options);

}  // namespace lwq::client
