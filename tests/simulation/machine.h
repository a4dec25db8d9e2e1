// A machine of a simulation on which a server process runs, is killed and started again. On a
// shared store it stands by, leads, and loses its term, as server_runner.cc has it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/server.h"

namespace lwq::simulation {

class Machine {
 public:
  using OnCommitted = std::function<void(const std::vector<Write>&)>;

  // `medium` and `world` outlive it.
  Machine(World* world, Medium* medium, int number, OnCommitted on_committed)
      : world_(*world),
        medium_(*medium),
        number_(number),
        on_committed_(std::move(on_committed)),
        clock_(world, absl::Hours(1 + number)) {}

  // The process starts.
  void Boot();
  void Kill();
  // SIGTERM: it ends by itself, and gives its term back.
  void Terminate();
  void RestartAfter(absl::Duration wait);
  // SIGSTOP and SIGCONT.
  void Pause(absl::Duration duration);
  // To be called after each event: work gets its turn, and what has ended the process ends it.
  void AfterEvent();

  // Null while it does not serve.
  SimServer* server() const {
    return server_ != nullptr && server_->is_alive() ? server_.get() : nullptr;
  }
  bool is_paused() const { return world_.now() < paused_until_; }
  absl::Duration paused_until() const { return paused_until_; }
  bool is_up() const { return up_; }
  MachineClock& clock() { return clock_; }
  int number() const { return number_; }
  // Whether it may die within a commit.
  void set_may_crash(bool may) { may_crash_ = may; }

  // Callers that wait for an answer: told when the process is gone.
  int64_t OnGone(std::function<void()> act) {
    on_gone_.emplace(++last_gone_, std::move(act));
    return last_gone_;
  }
  void NoLongerOnGone(int64_t number) { on_gone_.erase(number); }

 private:
  std::unique_ptr<ServerStore> NewCord();
  void Compete(bool is_restart);
  void Try(int life);
  void Serve(std::unique_ptr<ServerStore> cord, std::unique_ptr<Leadership> leadership);
  // Calls `act` every so often, while this process lives and is not paused.
  void Every(absl::Duration period, std::function<void()> act);
  void TellGone();

  World& world_;
  Medium& medium_;
  const int number_;
  const OnCommitted on_committed_;
  MachineClock clock_;
  int life_ = 0;  // of the process
  bool up_ = false;
  bool may_crash_ = false;
  bool crashed_ = false;
  bool lost_ = false;
  absl::Duration paused_until_ = absl::ZeroDuration();
  std::unique_ptr<ServerStore> standby_cord_;
  std::unique_ptr<Candidate> candidate_;
  std::unique_ptr<SimServer> server_;
  std::vector<std::unique_ptr<SimServer>> dead_;  // events may still name them
  std::map<int64_t, std::function<void()>> on_gone_;
  int64_t last_gone_ = 0;
};

}  // namespace lwq::simulation
