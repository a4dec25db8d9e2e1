// What a worker's log calls a task.
#pragma once

#include <string>

#include "proto/lwq/v1/worker_service.pb.h"

namespace lwq {

// "task=3f2a90c1d4e5 kind=quantize layer=3 job=j-1": the beginning of its name, what it does, and
// the jobs that want it, so that one job can be followed through the logs of all its workers.
std::string TaskLabel(const v1::Lease& lease);

}  // namespace lwq
