// Which faults a seed has, and how many: each run leaves out some kinds altogether, so that the
// others are seen by themselves too.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/client.h"
#include "tests/simulation/network.h"
#include "tests/simulation/store.h"
#include "tests/simulation/worker.h"

namespace lwq::simulation {

// What strikes from time to time.
enum class Fault {
  kServerDies,
  kServerStops,
  kServerStandsStill,
  kClockJumps,
  kWorkerDies,
  kWorkerStops,
  kWorkerStandsStill,
  kCutOff,
  kBlobLost,
  kBlobChanged,
};

struct Faults {
  static Faults Of(World& world);
  Fault Pick(World& world) const { return kinds[world.Below(static_cast<int>(kinds.size()))]; }

  int num_machines = 1;
  std::vector<Fault> kinds;
  absl::Duration every;  // between two, on average
  NetworkFaults network;
  WorkerFaults worker;
  StoreFaults store;
  ClientHabits client;
  double blob = 0;
  double meanwhile = 0;
  bool collects = false;
  int64_t collect_every = 30;  // seconds
  // Nothing happens for which a job may fail, but for tasks lost with their workers.
  bool jobs_must_succeed = true;
};

// Polls beside a task that they could have, and watchers beside an event that is there: found when
// they are so in several looks in a row, while the server has nothing to do.
class WaitsInVain {
 public:
  explicit WaitsInVain(int patience) : patience_(patience) {}
  void Look(World& world, const Promises& promises, SimServer& server);

 private:
  static std::string Vain(const Promises& promises, SimServer& server, const OpenCall& call);

  using Poll = UnaryCall<v1::LeaseTasksRequest, v1::LeaseTasksResponse>;
  const int patience_;
  std::map<std::pair<const SimServer*, int64_t>, int> in_vain_;  // looks, by call
};

}  // namespace lwq::simulation
