#include "tests/simulation/faults.h"

#include "absl/strings/str_cat.h"
#include "server/dispatch/transitions.h"

namespace lwq::simulation {

Faults Faults::Of(World& world) {
  Faults faults;
  const auto some = [&](double probability, double most) {
    return world.Chance(probability) ? most * (0.1 + 0.9 * (world.Below(1000) / 1000.0)) : 0.0;
  };
  faults.num_machines = 1 + world.Below(2);
  const bool workers_vanish = world.Chance(0.6);
  const bool blobs_vanish = world.Chance(0.3);
  for (const Fault fault : {Fault::kServerDies, Fault::kServerStops, Fault::kServerStandsStill,
                            Fault::kClockJumps, Fault::kCutOff}) {
    if (world.Chance(0.5)) faults.kinds.push_back(fault);
  }
  if (workers_vanish) {
    for (const Fault fault : {Fault::kWorkerDies, Fault::kWorkerStops, Fault::kWorkerStandsStill}) {
      if (world.Chance(0.6)) faults.kinds.push_back(fault);
    }
  }
  if (blobs_vanish) {
    faults.kinds.insert(faults.kinds.end(), {Fault::kBlobLost, Fault::kBlobChanged});
  }
  if (faults.kinds.empty()) faults.kinds.push_back(Fault::kClockJumps);
  faults.every = world.Between(absl::Seconds(4), absl::Seconds(60));
  faults.network = {.lost_request = some(0.5, 0.05),
                    .lost_reply = some(0.5, 0.05),
                    .twice = some(0.5, 0.05),
                    .slow = some(0.5, 0.1),
                    .cut_stream = some(0.5, 0.05)};
  faults.store = {.before = some(0.4, 0.03),
                  .uncertain = faults.num_machines > 1 ? some(0.4, 0.01) : 0,
                  .full = some(0.3, 0.03),
                  .crash = some(0.4, 0.01)};
  faults.worker = {.fails = some(0.3, 0.1),
                   .bad_output = some(0.2, 0.03),
                   .long_task = some(0.5, 0.2),
                   .upgrade = some(0.2, 0.5)};
  faults.client = {.cancels = some(0.4, 0.2),
                   .retries = some(0.5, 1.0),
                   .updates = some(0.4, 0.5),
                   .deletes = some(0.3, 1.0)};
  if (world.Chance(0.1)) faults.client.slowest_reader = absl::Seconds(60);
  faults.blob = some(0.3, 0.02);
  faults.meanwhile = some(0.6, 0.5);
  faults.collects = world.Chance(0.5);
  faults.collect_every = 10 + world.Below(60);
  // A task that was lost with several workers ends its jobs (CRASH_LOOP) whatever else there is.
  faults.jobs_must_succeed =
      !blobs_vanish && faults.worker.fails == 0 && faults.worker.bad_output == 0;
  return faults;
}

// What the caller waits for although it is there; "" when it does not.
std::string WaitsInVain::Vain(const Promises& promises, SimServer& server, const OpenCall& call) {
  if (call.finished()) return "";
  if (const auto* poll = dynamic_cast<const Poll*>(&call)) {
    bool could_have = false;
    server.scheduler().View([&](const DispatchState& state) {
      Draft draft(state, server.scheduler().Now());
      const auto leases = LeaseTasks(draft, poll->request());
      could_have = leases.ok() && !leases->empty();
    });
    if (!could_have) return "";
    return absl::StrCat("worker ", poll->request().worker_id(), " for a task");
  }
  const auto* watch = dynamic_cast<const WatchCall*>(&call);
  if (watch == nullptr || watch->writing()) return "";
  auto job = promises.jobs().find(watch->job());
  if (job == promises.jobs().end() || job->second.job().last_event_seq() <= watch->at()) return "";
  return absl::StrCat("a watcher of ", watch->job(), ", at ", watch->at(), ", for event ",
                      job->second.job().last_event_seq());
}

void WaitsInVain::Look(World& world, const Promises& promises, SimServer& server) {
  std::map<std::pair<const SimServer*, int64_t>, int> still;
  for (const auto& [number, call] : server.open()) {
    const std::string who = Vain(promises, server, *call);
    if (who.empty()) continue;
    const auto key = std::make_pair(&server, number);
    still[key] = in_vain_[key] + 1;
    if (still[key] < patience_) continue;
    world.Break("wake-up", absl::StrCat("there waits ", who, ", which is there"));
  }
  in_vain_ = std::move(still);
}

}  // namespace lwq::simulation
