#include "tests/simulation/server.h"

#include <algorithm>

#include "base/failure.h"
#include "tests/testing/failing_blob_store.h"

namespace lwq::simulation {
namespace {

constexpr int kMaxQueued = 1024;
// Work that makes work is done after so many turns, or it never is.
constexpr int kManyTurns = 100'000;

}  // namespace

SimServer::SimServer(World* world, Medium* medium, Clock* clock, std::unique_ptr<ServerStore> cord,
                     std::unique_ptr<Leadership> leadership)
    : world_(*world),
      medium_(*medium),
      clock_(clock),
      cord_(std::move(cord)),
      leadership_(std::move(leadership)),
      blob_faults_([this](int) {
        if (cord_->is_cut()) return testing::Fault::kBefore;
        if (!world_.Chance(medium_.blob_faults)) return testing::Fault::kNone;
        world_.Count("call of the blob store fails");
        return world_.Chance(0.5) ? testing::Fault::kBefore : testing::Fault::kAfter;
      }) {
  if (leadership_ != nullptr) {
    fenced_ = std::make_unique<FencedStore>(cord_.get(), leadership_.get());
  }
  blobs_ = std::make_unique<CollectableBlobStore>(
      std::make_unique<testing::FailingBlobStore>(medium_.blobs, &blob_faults_),
      medium_.retention.blob_grace, clock_);
  for (const char* name : {"write", "read", "blob", "beat", "watch", "files", "cpu"}) {
    const std::string lane = name;
    lanes_.push_back({std::make_unique<Executor>(lane, 0, kMaxQueued), false,
                      lane == "read" || lane == "beat" || lane == "watch"});
  }
  env_.write = env_.tasks = lanes_[0].executor.get();
  env_.read = lanes_[1].executor.get();
  env_.blob = lanes_[2].executor.get();
  env_.beat = lanes_[3].executor.get();
  env_.watch = lanes_[4].executor.get();
  env_.files = lanes_[5].executor.get();
  Store* store = fenced_ == nullptr ? static_cast<Store*>(cord_.get()) : fenced_.get();
  scheduler_ = std::make_unique<Scheduler>(store, blobs_.get(), clock_, &metrics_,
                                           lanes_[6].executor.get(), medium_.dispatch);
  if (medium_.plant == Plant::kLostWakeUp) {
    scheduler_->lease_waiters().Add([](int64_t) { return true; });
  }
  collector_ = std::make_unique<Collector>(scheduler_.get(), blobs_.get(), medium_.retention);
  env_.scheduler = scheduler_.get();
  env_.calls = &calls_;
  env_.guard = &guard_;
  env_.start_time = clock_->Now();
  jobs_ = std::make_unique<JobServiceImpl>(env_);
  workers_ = std::make_unique<WorkerServiceImpl>(env_);
}

SimServer::~SimServer() {
  if (alive_) Kill();
}

absl::Status SimServer::Start() {
  absl::Status started = scheduler_->Start();
  cord_->meanwhile = [this](bool in_commit) { Meanwhile(in_commit); };
  return started;
}

void SimServer::Schedule() {
  if (!alive_) return;
  for (Lane& lane : lanes_) {
    if (lane.scheduled || lane.executor->queued() == 0) continue;
    lane.scheduled = true;
    absl::Duration wait = world_.Between(absl::ZeroDuration(), absl::Milliseconds(2));
    if (is_paused()) wait += paused_until_ - world_.now();
    // A server that is killed stays as long as the world does: what was scheduled finds it dead.
    world_.After(wait, [this, &lane] {
      lane.scheduled = false;
      if (alive_ && !is_paused()) RunLane(lane);
    });
  }
}

void SimServer::RunLane(Lane& lane) {
  running_.push_back(&lane);
  lane.executor->RunNext();
  running_.pop_back();
}

void SimServer::Meanwhile(bool in_commit) {
  if (running_.empty() || running_.size() > 2 || !world_.Chance(medium_.meanwhile)) return;
  Lane& other = lanes_[world_.Below(static_cast<int>(lanes_.size()))];
  if (in_commit && !other.in_commits) return;
  // Who commits holds the lock of transitions, and so does whoever it interrupted.
  for (const Lane* lane : running_) {
    if (lane == &other) return;
  }
  if (running_.size() > 1 && !other.in_commits) return;
  if (other.executor->queued() > 0) world_.Count("thread gets in between");
  RunLane(other);
}

bool SimServer::is_idle() const {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [](const Lane& lane) { return lane.executor->queued() == 0; });
}

void SimServer::Tick() {
  scheduler_->Tick();
  scheduler_->hints().Notify(kTickTopic);
}

void SimServer::Reap() {
  env_.write->Post([this] { scheduler_->Reap().IgnoreError(); });
}

void SimServer::Collect() {
  env_.blob->Post([this] {
    const auto collected = collector_->Collect(/*dry_run=*/false);
    if (!collected.ok()) return;
    world_.Count("collection");
    if (collected->blobs() > 0) world_.Count("collection deletes blobs");
  });
}

void SimServer::RenewLease() { leadership_->Renew(); }

void SimServer::RunAll() {
  for (int turn = 0; turn < kManyTurns && !is_idle(); ++turn) {
    for (Lane& lane : lanes_) RunLane(lane);
  }
  if (!is_idle()) world_.Break("stop", "the server's executors never come to an end");
}

// Every call has to be finished by somebody: one that is not would keep the server from stopping.
void SimServer::EndCalls() {
  while (!open_.empty()) {
    const auto open = std::exchange(open_, {});
    for (const auto& [number, call] : open) {
      if (!call->finished()) world_.Break("stop", "a call was never finished");
      call->Close();
    }
    RunAll();
  }
}

void SimServer::Kill() {
  if (!alive_) return;
  cord_->Cut();
  cord_->meanwhile = nullptr;
  scheduler_->draining = true;
  for (const auto& [number, call] : open_) call->Forget();
  // Objects are owned by the work that is queued: it runs, and nobody hears of it.
  for (const auto& [number, call] : open_) call->Cancel();
  RunAll();
  EndCalls();
  alive_ = false;
}

void SimServer::Drain() {
  if (!alive_) return;
  scheduler_->draining = true;
  calls_.DrainAll();
  RunAll();
  EndCalls();
  leadership_.reset();
  cord_->Cut();
  cord_->meanwhile = nullptr;
  alive_ = false;
}

}  // namespace lwq::simulation
