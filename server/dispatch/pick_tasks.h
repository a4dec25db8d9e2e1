// Which tasks a worker is handed: first whose, by the tenants' shares, then which of that tenant's,
// by rank. It looks at the heads of what the worker can run, of each tenant.
#pragma once

#include <vector>

#include "server/dispatch/dispatch_state.h"

namespace lwq {

// At most `count`, in the order of handing out.
std::vector<Rank> PickTasks(const Draft& draft, const v1::WorkerRecord& worker, int count);
// What is picked next, in the same draft, knows of this one.
void NoteHandedOut(Draft& draft, const v1::TaskRecord& task, const v1::WorkerRecord& worker);

// Whether other tenants' tasks of the same needs go before this one's.
bool HasHadItsShare(const DispatchState& state, const v1::TaskRecord& task);

}  // namespace lwq
