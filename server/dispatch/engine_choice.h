// Which class of workers computes a job: all of its tasks have to be of one numerics class and one
// version of the engine, so that results fit together and are found again.
#pragma once

#include <cstdint>
#include <set>

#include "server/dispatch/dispatch_state.h"
#include "server/dispatch/task_match.h"

namespace lwq {

struct EngineChoice {
  v1::EngineClass engine;  // empty when no worker is known
  // Workers of the class that are there, and take tasks, can run all that is needed.
  bool can_run = false;
};

// The class of which workers can run `needs`, whose own classes are of no matter; of several the
// fastest: by the operations per second that its workers registered with, all that are there
// together, so that one GPU outweighs the processors beside it; of equally fast ones that of most
// workers. Where none can, likewise of those that are there, else the class of most that are known:
// they may be mended, or come back.
EngineChoice ChooseEngine(const DispatchState& state, int64_t steady_us,
                          const std::set<TaskNeed>& needs);

// What all tasks of a job need: under another class they all run again.
std::set<TaskNeed> NeedsOf(const DispatchState& state, const v1::JobRecord& job);

}  // namespace lwq
