// What a worker is handed with a task: of the model's manifest and of the inputs' outputs only what
// the task reads. A lease is one message, and of a model with many experts the inventory or the
// reports of all layers alone would pass what a message may be.
#pragma once

#include <cstddef>
#include <cstdint>

#include "proto/lwq/v1/worker_service.pb.h"
#include "server/dispatch/dispatch_state.h"

namespace lwq {

// What the leases of one answer may take: the largest message (base/rpc/channel.h) less the rest of
// the answer. A plan takes about 250 bytes a unit: 15,000 units, or 500 layers of 30, fit.
inline constexpr size_t kMaxLeaseBytes = (size_t{4} << 20) - (size_t{64} << 10);

v1::Lease MakeLease(const Draft& draft, const v1::TaskRecord& task, int64_t ttl_us);

}  // namespace lwq
