// Runs seeds of the simulation.
//   simulate --seed N            one, and tells what happens
//   simulate --first N --seeds N many; prints each that breaks a promise, and what the runs had in
//   them
// The exit status is 1 when one broke a promise.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <iostream>
#include <map>
#include <string>

#include "base/log.h"
#include "tests/simulation/simulation.h"

namespace lwq::simulation {
namespace {

int Main(int argc, char** argv) {
  uint64_t seed = 0, first = 1, seeds = 1000;
  bool log = false;
  Plant plant = Plant::kNone;
  CLI::App app("Runs the service in one thread, with faults, by a seed.");
  CLI::Option* one = app.add_option("--seed", seed, "This seed alone, and tell what happens");
  app.add_option("--first", first, "The first seed");
  app.add_option("--seeds", seeds, "How many");
  app.add_flag("--log", log, "With the server's own log");
  app.add_option("--plant", plant, "With a bug put in on purpose")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Plant>{{"split-commits", Plant::kSplitCommits},
                                       {"no-fence", Plant::kNoFence},
                                       {"lost-wake-up", Plant::kLostWakeUp},
                                       {"no-quota", Plant::kNoQuota},
                                       {"starving", Plant::kStarving}}));
  CLI11_PARSE(app, argc, argv);
  spdlog::set_level(log ? spdlog::level::debug : spdlog::level::off);
  const bool tells = one->count() > 0;
  if (tells) {
    first = seed;
    seeds = 1;
  }
  std::map<std::string, int64_t> faults;
  Outcome total;
  int64_t num_broken = 0;
  for (uint64_t n = first; n < first + seeds; ++n) {
    const Outcome run = Simulate(n, {.tells = tells, .plant = plant});
    if (run.broken) {
      ++num_broken;
      std::cout << "seed " << n << ": " << run.how << std::endl;
    }
    total.steps += run.steps;
    total.commits += run.commits;
    total.completions += run.completions;
    total.artifacts += run.artifacts;
    total.simulated += run.simulated;
    for (const auto& [fault, count] : run.faults) faults[fault] += count;
  }
  std::cout << seeds << " seeds from " << first << ", " << num_broken << " broken; " << total.steps
            << " steps, " << total.commits << " commits, " << total.completions << " completions, "
            << total.artifacts << " artifacts, " << total.simulated / absl::Hours(1)
            << " h simulated\n";
  for (const auto& [fault, count] : faults) std::cout << "  " << fault << ": " << count << "\n";
  return num_broken == 0 ? 0 : 1;
}

}  // namespace
}  // namespace lwq::simulation

int main(int argc, char** argv) { return lwq::simulation::Main(argc, argv); }
