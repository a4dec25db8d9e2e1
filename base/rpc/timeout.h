// Deadlines of calls as times from now: gRPC then measures them by the clock that is never set.
#pragma once

#include <grpc/support/time.h>

#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace lwq {

inline gpr_timespec AfterNow(absl::Duration timeout) {
  return gpr_time_from_micros(absl::ToInt64Microseconds(timeout), GPR_TIMESPAN);
}
inline void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(AfterNow(timeout));
}

}  // namespace lwq
