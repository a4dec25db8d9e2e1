#include "server/store/leadership.h"

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr char kTermKey[] = "term";
constexpr char kLeaseKey[] = "lease";

Write PutLeader(const char* key, const std::string& value) {
  Write write{.table = Table::kLeader};
  write.record.key = key;
  write.record.value = value;
  return write;
}

struct LeaderRows {
  Record term, lease;  // version 0: not there yet
};

absl::StatusOr<LeaderRows> ReadLeader(Store& store) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                       store.GetMany(Table::kLeader, {kTermKey, kLeaseKey}));
  LeaderRows leader;
  for (const Record& row : rows) (row.key == kTermKey ? leader.term : leader.lease) = row;
  return leader;
}

}  // namespace

absl::Duration Candidate::UnchangedFor(const Record& lease) {
  if (lease.version != version_) {
    version_ = lease.version;
    since_ = clock_->Steady();
  }
  return clock_->Steady() - since_;
}

absl::StatusOr<std::unique_ptr<Leadership>> Candidate::Try() {
  absl::StatusOr<LeaderRows> leader = ReadLeader(*store_);
  if (!leader.ok()) {
    // What happens while the store is away is not the leader's silence.
    version_ = -1;
    return leader.status();
  }
  const std::string& holder = leader->lease.value;
  const bool is_free = holder.empty() || (options_.is_restart && holder == options_.holder) ||
                       UnchangedFor(leader->lease) >= options_.ttl;
  if (!is_free) {
    if (told_ != holder) spdlog::info("standing by: {} is the leader", LogSafe(holder));
    told_ = holder;
    return nullptr;
  }
  Write term = PutLeader(kTermKey, options_.holder);
  term.expected_version = leader->term.version;
  Failpoint("takeover.before_commit");
  absl::Status taken = store_->Commit({term, PutLeader(kLeaseKey, options_.holder)});
  if (!taken.ok()) {
    spdlog::info("taking over from {}: {}", LogSafe(holder), LogSafe(taken.message()));
    return nullptr;
  }
  Failpoint("takeover.after_commit");
  spdlog::info("leader, term {}", leader->term.version + 1);
  return std::unique_ptr<Leadership>(
      new Leadership(store_, clock_, options_, leader->term.version + 1));
}

absl::StatusOr<std::unique_ptr<Leadership>> Leadership::Win(Store* store, Clock* clock,
                                                            const LeaderOptions& options,
                                                            const std::function<bool()>& stop) {
  Candidate candidate(store, clock, options);
  while (!stop()) {
    absl::StatusOr<std::unique_ptr<Leadership>> won = candidate.Try();
    if (won.ok() && *won != nullptr) {
      (*won)->StartRenewing();
      return won;
    }
    if (!won.ok()) {
      spdlog::warn("standing by, and the store is away: {}", LogSafe(won.status().message()));
    }
    clock->SleepFor(options.poll_every);
  }
  return absl::CancelledError("this server was to stop while it stood by");
}

void Leadership::StartRenewing() {
  renewer_ = std::thread([this] { KeepRenewing(); });
}

Leadership::~Leadership() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (renewer_.joinable()) renewer_.join();
  if (lost()) return;
  absl::Status given = PutLease("");
  if (!given.ok()) spdlog::warn("giving the lease back: {}", LogSafe(given.message()));
}

Write Leadership::Check() const {
  Write check = PutLeader(kTermKey, "");
  check.check_only = true;
  check.expected_version = term_;
  return check;
}

absl::Status Leadership::PutLease(const std::string& value) {
  return store_->Commit({Check(), PutLeader(kLeaseKey, value)});
}

void Leadership::KeepRenewing() {
  while (true) {
    {
      const absl::Duration next = clock_->Steady() + options_.renew_every;
      MutexLock lock(&mu_);
      while (!stopping_ && !lost_ && clock_->Steady() < next) {
        clock_->WaitFor(changed_, &mu_, next - clock_->Steady());
      }
      if (stopping_ || lost_) return;
    }
    Renew();
  }
}

void Leadership::Renew() {
  Failpoint("leader.before_renewal");
  absl::Status renewed = PutLease(options_.holder);
  if (ReasonOf(renewed) == reasons::kVersionConflict.name) {
    Lose(renewed.message());
  } else if (!renewed.ok()) {
    // Another server may or may not have taken over: the next one that gets through says.
    spdlog::warn("renewing the lease: {}", LogSafe(renewed.message()));
  }
}

bool Leadership::lost() const {
  MutexLock lock(&mu_);
  return lost_;
}

void Leadership::Lose(absl::string_view why) {
  std::function<void()> act;
  {
    MutexLock lock(&mu_);
    if (lost_) return;
    lost_ = true;
    act = std::move(on_lost_);
    changed_.SignalAll();
  }
  spdlog::warn("no longer the leader of term {}: {}", term_, LogSafe(why));
  if (act) act();
}

void Leadership::OnLost(std::function<void()> act) {
  {
    MutexLock lock(&mu_);
    if (!lost_) {
      on_lost_ = std::move(act);
      return;
    }
  }
  act();
}

absl::Status Leadership::NotLeader() const {
  return Failure(reasons::kNotLeader, absl::StrCat("this server led in term ", term_,
                                                   " and does no longer: ask the one that does"));
}

absl::Status FencedStore::Commit(const std::vector<Write>& writes) {
  if (leadership_->lost()) return leadership_->NotLeader();
  std::vector<Write> fenced = {leadership_->Check()};
  fenced.insert(fenced.end(), writes.begin(), writes.end());
  absl::Status status = inner_->Commit(fenced);
  const std::string reason = ReasonOf(status);
  if (reason == reasons::kStoreUncertain.name) {
    leadership_->Lose(status.message());
  } else if (reason == reasons::kVersionConflict.name) {
    // The term's, or that of one of the writes?
    absl::StatusOr<LeaderRows> leader = ReadLeader(*inner_);
    if (!leader.ok()) return leader.status();
    if (leader->term.version != leadership_->term()) {
      leadership_->Lose(absl::StrCat(leader->term.value, " leads in term ", leader->term.version));
    }
  }
  return leadership_->lost() ? leadership_->NotLeader() : status;
}

}  // namespace lwq
