// Which of the servers on one store is the leader: the one whose term the store holds. Others stand
// by. docs/decisions/0019-one-leader-fenced-by-term.md.
//
// Two rows say it. "term": its version is the term, its value who took it. "lease": rewritten by
// the leader every few seconds, empty when it was given back. Nobody compares clocks: who stands by
// takes over when the lease has not changed for a while of its own steady time, and the leader
// goes on until it learns of a higher term. Safety never depends on either: every commit of a
// leader checks the term in its own transaction (FencedStore).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/store/store.h"

namespace lwq {

struct LeaderOptions {
  // Names this server, the same after a restart; for people, and for a restarted leader, which does
  // not wait for its own lease.
  std::string holder;
  absl::Duration ttl = absl::Seconds(12);  // a lease that has not changed for so long is free
  absl::Duration renew_every = absl::Seconds(3);
  absl::Duration poll_every = absl::Seconds(1);  // of those who stand by
  bool is_restart = true;  // whether `holder`'s own lease is free: once per process
};

class Leadership;

// One server's way to be the leader, a step at a time. Not thread-safe. `store` and `clock` outlive
// it and what it wins.
class Candidate {
 public:
  Candidate(Store* store, Clock* clock, const LeaderOptions& options)
      : store_(store), clock_(clock), options_(options) {}

  // Looks at the lease, and takes it when it is free. Null when another leads or has just won. A
  // store that is not there is an error, and no silence of the leader's. The term that is won is
  // not renewed by itself: see Leadership::StartRenewing.
  absl::StatusOr<std::unique_ptr<Leadership>> Try();

 private:
  // For how long a lease has stood as it is, by this server's own time.
  absl::Duration UnchangedFor(const Record& lease);

  Store* const store_;
  Clock* const clock_;
  const LeaderOptions options_;
  int64_t version_ = -1;  // of the lease that was seen last
  absl::Duration since_;  // when it was first seen so
  std::string told_;      // the holder that the log has named
};

// Thread-safe.
class Leadership {
 public:
  // Stands by until this server is the leader, who keeps renewing; waits out a store that is not
  // there. CANCELLED when `stop` says so. `store` and `clock` outlive it.
  static absl::StatusOr<std::unique_ptr<Leadership>> Win(Store* store, Clock* clock,
                                                         const LeaderOptions& options,
                                                         const std::function<bool()>& stop);
  // Gives the lease back, unless the term is lost.
  ~Leadership();

  // Renews from a thread of its own until this is destroyed or the term is lost.
  void StartRenewing();
  // Once, on the caller's thread.
  void Renew();

  int64_t term() const { return term_; }
  bool lost() const;
  // `act` is called once when the term is lost, from any thread; at once if it is lost already.
  void OnLost(std::function<void()> act);
  // The term is no longer this server's, or the store may hold what this server does not know of:
  // it has to drop its state and win again.
  void Lose(absl::string_view why);

  // The condition of every commit.
  Write Check() const;
  // UNAVAILABLE "NOT_LEADER".
  absl::Status NotLeader() const;

 private:
  friend class Candidate;
  Leadership(Store* store, Clock* clock, const LeaderOptions& options, int64_t term)
      : store_(store), clock_(clock), options_(options), term_(term) {}
  void KeepRenewing();
  absl::Status PutLease(const std::string& value);

  Store* const store_;
  Clock* const clock_;
  const LeaderOptions options_;
  const int64_t term_;
  mutable Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool lost_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> on_lost_ ABSL_GUARDED_BY(mu_);
  std::thread renewer_;
};

// `inner`, with the leader's term checked in every commit. A commit after the term was lost fails
// with "NOT_LEADER", and so does one whose outcome nobody can tell: the leadership is then lost.
class FencedStore : public Store {
 public:
  // Both outlive it.
  FencedStore(Store* inner, Leadership* leadership) : inner_(inner), leadership_(leadership) {}

  absl::Status Commit(const std::vector<Write>& writes) override;
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override {
    return inner_->GetMany(table, keys);
  }
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override {
    return inner_->List(table, query);
  }
  absl::string_view name() const override { return inner_->name(); }
  bool shared() const override { return inner_->shared(); }

 private:
  Store* const inner_;
  Leadership* const leadership_;
};

}  // namespace lwq
