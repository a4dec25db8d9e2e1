// Why the process that ran a task ended.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace lwq {

// How many processes the kernel has killed for want of memory since the machine started, control
// groups' included (/proc/vmstat); -1 where it does not tell.
int64_t NumOomKills();

// The failure of the task that ran: RESOURCE_EXHAUSTED "HOST_OOM" where it was killed and the
// kernel has killed for memory meanwhile, else INTERNAL "TASK_CRASHED". `wait_status` is waitpid's.
absl::Status FailureOfEnd(int wait_status, int64_t oom_kills_before, int64_t oom_kills_after);

}  // namespace lwq
