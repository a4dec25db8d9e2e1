#include "tests/simulation/machine.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace lwq::simulation {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(250);
constexpr absl::Duration kReap = absl::Seconds(1);

}  // namespace

std::unique_ptr<ServerStore> Machine::NewCord() {
  auto cord = std::make_unique<ServerStore>(&world_, medium_.rows, &medium_.store_faults,
                                            medium_.is_shared);
  cord->on_committed = on_committed_;
  cord->plant = medium_.plant;
  return cord;
}

void Machine::Every(absl::Duration period, std::function<void()> act) {
  world_.After(period, [this, period, act = std::move(act), life = life_] {
    if (life != life_) return;
    if (!is_paused()) act();
    if (life == life_) Every(period, act);
  });
}

void Machine::Boot() {
  if (up_) return;
  up_ = true;
  ++life_;
  world_.Note(absl::StrCat("machine ", number_, " starts"));
  if (medium_.is_shared) {
    Compete(/*is_restart=*/true);
  } else {
    Serve(NewCord(), nullptr);
  }
}

void Machine::Compete(bool is_restart) {
  LeaderOptions options;
  options.holder = absl::StrCat("machine-", number_);
  options.is_restart = is_restart;
  standby_cord_ = NewCord();
  candidate_ = std::make_unique<Candidate>(standby_cord_.get(), &clock_, options);
  Try(life_);
}

void Machine::Try(int life) {
  if (life != life_ || candidate_ == nullptr) return;
  if (!is_paused()) {
    auto won = candidate_->Try();
    if (won.ok() && *won != nullptr) {
      candidate_.reset();
      world_.Note(absl::StrCat("machine ", number_, " leads in term ", (*won)->term()));
      if ((*won)->term() > 1) world_.Count("takeover");
      Serve(std::move(standby_cord_), *std::move(won));
      return;
    }
  }
  world_.After(LeaderOptions().poll_every, [this, life] { Try(life); });
}

void Machine::Serve(std::unique_ptr<ServerStore> cord, std::unique_ptr<Leadership> leadership) {
  ServerStore* store = cord.get();
  lost_ = false;
  if (leadership != nullptr) leadership->OnLost([this] { lost_ = true; });
  server_ = std::make_unique<SimServer>(&world_, &medium_, &clock_, std::move(cord),
                                        std::move(leadership));
  store->on_crash = [this] { crashed_ = true; };
  if (!may_crash_) store->on_crash = nullptr;
  if (absl::Status started = server_->Start(); !started.ok()) {
    // Whoever watches over the process starts it again.
    world_.Note(absl::StrCat("machine ", number_, " does not start: ", started.message()));
    crashed_ = !lost_;
    return;
  }
  SimServer* server = server_.get();
  Every(kTick, [server] {
    if (server->is_alive()) server->Tick();
  });
  Every(kReap, [server] {
    if (server->is_alive()) server->Reap();
  });
  if (server->leadership() != nullptr) {
    Every(LeaderOptions().renew_every, [server] {
      if (server->is_alive()) server->RenewLease();
    });
  }
  if (is_paused()) server->PauseUntil(paused_until_);
}

void Machine::TellGone() {
  const auto told = std::exchange(on_gone_, {});
  for (const auto& [number, act] : told) act();
}

void Machine::Kill() {
  if (!up_) return;
  world_.Note(absl::StrCat("machine ", number_, " dies"));
  ++life_;
  up_ = false;
  crashed_ = lost_ = false;
  paused_until_ = absl::ZeroDuration();
  candidate_.reset();
  standby_cord_.reset();
  if (server_ != nullptr) {
    server_->Kill();
    dead_.push_back(std::move(server_));
  }
  TellGone();
}

void Machine::Terminate() {
  if (!up_ || is_paused()) return;
  world_.Note(absl::StrCat("machine ", number_, " is told to stop"));
  if (server_ != nullptr) server_->Drain();
  Kill();
}

void Machine::RestartAfter(absl::Duration wait) {
  world_.After(wait, [this] { Boot(); });
}

void Machine::Pause(absl::Duration duration) {
  if (!up_) return;
  world_.Note(absl::StrCat("machine ", number_, " stands still"));
  paused_until_ = std::max(paused_until_, world_.now() + duration);
  if (server_ != nullptr) server_->PauseUntil(paused_until_);
}

void Machine::AfterEvent() {
  if (crashed_) {
    Kill();
    RestartAfter(world_.Between(absl::Seconds(1), absl::Seconds(5)));
    return;
  }
  if (lost_ && server_ != nullptr) {
    world_.Note(absl::StrCat("machine ", number_, " leads no more"));
    lost_ = false;
    ++life_;
    server_->Drain();
    dead_.push_back(std::move(server_));
    TellGone();
    Compete(/*is_restart=*/false);
    return;
  }
  if (server_ != nullptr) server_->Schedule();
}

}  // namespace lwq::simulation
