#include "server/service/lease_waiters.h"

#include <algorithm>
#include <utility>

namespace lwq {

int64_t LeaseWaiters::Add(Wake wake) {
  MutexLock lock(&mu_);
  waiters_[++next_id_] = std::move(wake);
  return next_id_;
}

void LeaseWaiters::Remove(int64_t id) {
  MutexLock lock(&mu_);
  waiters_.erase(id);
}

void LeaseWaiters::WakeFor(int64_t tasks) {
  MutexLock lock(&mu_);
  const auto all = static_cast<int64_t>(waiters_.size());
  for (int64_t i = 0; i < std::min(tasks, all); ++i) WakeNext(all - 1);
}

void LeaseWaiters::PassOn(int64_t others) {
  MutexLock lock(&mu_);
  if (others > 0) WakeNext(others - 1);
}

void LeaseWaiters::WakeNext(int64_t others) {
  for (size_t i = 0; i < waiters_.size(); ++i) {
    auto next = waiters_.upper_bound(last_woken_);
    if (next == waiters_.end()) next = waiters_.begin();
    last_woken_ = next->first;
    if (next->second(others)) return;
  }
}

}  // namespace lwq
