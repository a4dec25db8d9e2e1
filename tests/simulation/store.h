// The store as one server of a simulation sees it: rows that outlive the server, calls that fail, a
// cord that is cut when the server dies, and other threads' work in the middle of a call.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/failure.h"
#include "server/store/store.h"
#include "tests/simulation/plant.h"
#include "tests/simulation/world.h"

namespace lwq::simulation {

struct StoreFaults {
  double before = 0;     // a call that fails having done nothing
  double uncertain = 0;  // a commit that is done, and the caller is not told; shared stores alone
  double full = 0;       // a commit for which there is no room
  double crash = 0;      // the server dies in a commit, half of the times after it is done
};

// `rows`, `world`, `faults` outlive it.
class ServerStore : public Store {
 public:
  ServerStore(World* world, Store* rows, const StoreFaults* faults, bool is_shared)
      : world_(*world), rows_(*rows), faults_(*faults), is_shared_(is_shared) {}

  absl::Status Commit(const std::vector<Write>& writes) override {
    if (cut_) return Away();
    if (on_crash && world_.Chance(faults_.crash)) {
      world_.Count("server dies in a commit");
      if (world_.Chance(0.5)) Done(writes).IgnoreError();
      cut_ = true;
      on_crash();
      return Away();
    }
    if (world_.Chance(faults_.before)) {
      world_.Count("commit fails");
      return Away();
    }
    if (world_.Chance(faults_.full)) {
      world_.Count("store is full");
      return Failure(absl::StatusCode::kResourceExhausted, "STORE_FULL", "no room, by a draw");
    }
    absl::Status status = Done(writes);
    if (status.ok() && is_shared_ && world_.Chance(faults_.uncertain)) {
      world_.Count("commit is uncertain");
      return Failure(absl::StatusCode::kUnknown, "STORE_UNCERTAIN", "done and not told, by a draw");
    }
    if (meanwhile) meanwhile(/*in_commit=*/true);
    return status;
  }
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override {
    if (absl::Status there = Read(table); !there.ok()) return there;
    auto found = rows_.GetMany(table, keys);
    if (meanwhile && table != Table::kLeader) meanwhile(/*in_commit=*/false);
    return found;
  }
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override {
    if (absl::Status there = Read(table); !there.ok()) return there;
    auto found = rows_.List(table, query);
    if (meanwhile) meanwhile(/*in_commit=*/false);
    return found;
  }
  absl::string_view name() const override { return "simulated"; }
  bool shared() const override { return is_shared_; }

  // From here on nothing that this server does is heard of.
  void Cut() { cut_ = true; }
  bool is_cut() const { return cut_; }

  std::function<void()> on_crash;                               // while it may crash
  std::function<void(bool in_commit)> meanwhile;                // what other threads do
  std::function<void(const std::vector<Write>&)> on_committed;  // before anybody else sees it
  Plant plant = Plant::kNone;

 private:
  absl::Status Done(std::vector<Write> writes) {
    if (plant == Plant::kNoFence) DropFence(writes);
    if (plant != Plant::kSplitCommits || writes.size() < 2) return DoneWhole(writes);
    const auto middle = writes.begin() + static_cast<int64_t>(writes.size() / 2);
    absl::Status status = DoneWhole({writes.begin(), middle});
    if (!status.ok()) return status;
    return world_.Chance(0.05) ? Away() : DoneWhole({middle, writes.end()});
  }
  // Leadership's own commits, which are of nothing else, stay as they are.
  static void DropFence(std::vector<Write>& writes) {
    const auto is_fence = [](const Write& write) { return write.table == Table::kLeader; };
    if (std::all_of(writes.begin(), writes.end(), is_fence)) return;
    std::erase_if(writes, is_fence);
  }
  absl::Status DoneWhole(const std::vector<Write>& writes) {
    absl::Status status = rows_.Commit(writes);
    if (status.ok() && on_committed) on_committed(writes);
    return status;
  }
  absl::Status Read(Table) {
    if (cut_) return Away();
    if (!world_.Chance(faults_.before)) return absl::OkStatus();
    world_.Count("read fails");
    return Away();
  }
  static absl::Status Away() {
    return Failure(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE", "away, by a draw");
  }

  World& world_;
  Store& rows_;
  const StoreFaults& faults_;
  const bool is_shared_;
  bool cut_ = false;
};

}  // namespace lwq::simulation
