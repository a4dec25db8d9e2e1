// One run of the whole service in one thread, by a seed: servers, workers, clients, a network, a
// store and clocks, with faults. The same seed is the same run.
//
// What is the product's own: the state machine, scheduler, collector, services (their RPC reactors
// included), leadership and fence, the wrapper of blobs that are collected. What stands in: threads
// (executors run a piece of work when the simulation says, and now and then in the middle of
// another thread's call of the store), sockets, workers, clients, the rows and the blobs (in
// memory).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "tests/simulation/plant.h"

namespace lwq::simulation {

struct RunOptions {
  bool tells = false;  // prints what happens
  Plant plant = Plant::kNone;
};

struct Outcome {
  uint64_t seed = 0;
  bool broken = false;
  std::string how;     // which promise, when, and by what
  uint64_t trace = 0;  // of all that happened
  int64_t steps = 0, commits = 0, completions = 0, artifacts = 0;
  absl::Duration simulated;
  std::map<std::string, int64_t> faults;  // that happened, by name
};

Outcome Simulate(uint64_t seed, const RunOptions& options = {});

}  // namespace lwq::simulation
