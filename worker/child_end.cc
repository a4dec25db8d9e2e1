#include "worker/child_end.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {

int64_t NumOomKills() {
  std::FILE* file = std::fopen("/proc/vmstat", "r");
  if (file == nullptr) return -1;
  char line[256];
  long long kills = -1;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "oom_kill %lld", &kills) == 1) break;
  }
  std::fclose(file);
  return kills;
}

absl::Status FailureOfEnd(int wait_status, int64_t oom_kills_before, int64_t oom_kills_after) {
  const bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  if (killed && oom_kills_before >= 0 && oom_kills_after > oom_kills_before) {
    return Failure(reasons::kHostOom,
                   "the system had no memory left and killed the process that ran the task");
  }
  std::string how = absl::StrCat("ended with code ", WEXITSTATUS(wait_status));
  if (WIFSIGNALED(wait_status)) {
    const char* name = ::strsignal(WTERMSIG(wait_status));
    how = absl::StrCat("was ended by signal ", WTERMSIG(wait_status), " (",
                       name == nullptr ? "unknown" : name, ")");
  }
  return Failure(reasons::kTaskCrashed, absl::StrCat("the process that ran the task ", how));
}

}  // namespace lwq
