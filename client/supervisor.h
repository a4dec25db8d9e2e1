// Keeps a few child processes running: starts them, starts them again when they die, gives up when
// one dies quickly again and again, and stops them in order.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace lwq::client {

struct ChildSpec {
  std::string name;
  std::vector<std::string> argv;
  std::string log_path;
  std::string ready_file;   // removed before each start; empty: none
  std::string start_after;  // started once this file exists; empty: at once
};

struct SupervisorOptions {
  absl::Duration first_backoff = absl::Milliseconds(200);  // doubled at each quick death
  absl::Duration longest_backoff = absl::Seconds(5);
  absl::Duration quick = absl::Seconds(5);        // a child that lived shorter died quickly
  int most_quick_deaths = 6;                      // in a row, of one child; then all is given up
  absl::Duration stop_grace = absl::Seconds(15);  // from SIGTERM to SIGKILL
  absl::Duration poll = absl::Milliseconds(50);
  // Asked at every poll; false stops everything and ends Run with OK.
  std::function<bool()> wanted;
};

// What became of a child: "was killed by signal 9", "exited with status 1".
std::string DescribeExit(int wait_status);

// Single-threaded. Children die with the supervisor, even when it is killed.
class Supervisor {
 public:
  Supervisor(SupervisorOptions options, std::vector<ChildSpec> children);

  // Runs until `wanted` is false (OK), or until a child is given up: FAILED_PRECONDITION CHILD_DIED
  // with the end of its log. Children are stopped in both cases, the last of the list first. A
  // child that exits with status 78 (configuration refused) is given up at once.
  absl::Status Run();

 private:
  struct Child {
    ChildSpec spec;
    pid_t pid = 0;  // 0: not running
    absl::Time started;
    absl::Time start_at = absl::InfinitePast();
    int quick_deaths = 0;
  };

  absl::Status StartIfDue(Child* child);
  absl::Status ReapIfDead(Child* child);
  void StopAll();

  const SupervisorOptions options_;
  std::vector<Child> children_;
};

}  // namespace lwq::client
