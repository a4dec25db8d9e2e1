// Why a task is not running, for people. Pure.
#pragma once

#include <string>

#include "server/dispatch/dispatch_state.h"

namespace lwq {

// One sentence without a full stop, or "" for one that runs or is done: what a BLOCKED task waits
// for, why no worker has a READY one.
std::string WhyItWaits(const Draft& draft, const v1::TaskRecord& task);

// Why a LEASED task does not get on: what its worker waits for, or that nothing is heard of the
// worker. "" while it does.
std::string WhyItStands(const Draft& draft, const v1::TaskRecord& task);

// Why nothing of a job is running: what is in the way of its first task that could. "" while
// something is, and of one that has ended.
std::string WhyJobWaits(const Draft& draft, const v1::JobRecord& job);

}  // namespace lwq
