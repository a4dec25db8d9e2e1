// The one thread of a simulation: what happens next, when, and by which draw of the seed.
// Everything that a run does follows from its seed, so the same seed is the same run, to the last
// byte.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace lwq::simulation {

// Not thread-safe.
class World {
 public:
  explicit World(uint64_t seed, bool tells = false);

  // ---- Draws ----
  uint64_t Draw();
  bool Chance(double probability);
  int Below(int n);  // 0 to n - 1
  absl::Duration Between(absl::Duration least, absl::Duration most);
  std::string Hex(int num_bytes);

  // ---- Time ----
  absl::Duration now() const { return now_; }  // since the beginning
  void After(absl::Duration wait, std::function<void()> act);
  // The next of what is to happen, unless it is later than `end`: then false, and it is `end`.
  bool RunNext(absl::Duration end);
  int64_t num_steps() const { return num_steps_; }

  // ---- What is told of a run ----
  // Becomes part of the trace; printed when the world tells.
  void Note(absl::string_view what);
  uint64_t trace() const { return trace_; }
  // That a fault happened: a run whose faults never came has shown nothing.
  void Count(const std::string& fault) { ++faults_[fault]; }
  const std::map<std::string, int64_t>& faults() const { return faults_; }
  // A promise is broken; the run is over.
  void Break(absl::string_view invariant, absl::string_view how);
  bool broken() const { return !broken_.empty(); }
  const std::string& how_broken() const { return broken_; }

 private:
  uint64_t state_;
  const bool tells_;
  absl::Duration now_ = absl::ZeroDuration();
  int64_t num_steps_ = 0;
  int64_t next_ = 0;  // keeps what happens at one time in the order in which it was asked for
  std::map<std::pair<absl::Duration, int64_t>, std::function<void()>> events_;
  uint64_t trace_ = 14695981039346656037u;
  std::map<std::string, int64_t> faults_;
  std::string broken_;
};

// What one machine takes for the time. Runs with the world; the wall can be set.
class MachineClock : public Clock {
 public:
  MachineClock(const World* world, absl::Duration up_for) : world_(world), up_for_(up_for) {}

  absl::Time Now() override { return absl::FromUnixSeconds(1'800'000'000) + world_->now() + set_; }
  absl::Duration Steady() override { return up_for_ + world_->now(); }
  void JumpWall(absl::Duration by) { set_ += by; }
  // There is one thread: whoever waited in it would wait for ever.
  void SleepFor(absl::Duration) override { std::abort(); }
  bool WaitFor(CondVar&, Mutex*, absl::Duration) override { std::abort(); }

 private:
  const World* const world_;
  const absl::Duration up_for_;
  absl::Duration set_ = absl::ZeroDuration();
};

}  // namespace lwq::simulation
