// Deleting jobs and artifacts: in one commit each, whoever asks for it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/service/request_log.h"
#include "server/service/scheduler.h"
#include "server/store/store.h"

namespace lwq {

// An ended job with its events and its artifact. NOT_FOUND; FAILED_PRECONDITION "STATE_CONFLICT"
// for one that has not ended.
absl::Status DeleteJob(Scheduler& scheduler, const std::string& name, const RequestMark& mark = {});
// Its job stays, and names no artifact any more. NOT_FOUND.
absl::Status DeleteArtifact(Scheduler& scheduler, const std::string& name,
                            const RequestMark& mark = {});

}  // namespace lwq
