// Workers' polls that wait for a task: as many are woken as there are tasks, each in its turn.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "base/mutex.h"

namespace lwq {

// Thread-safe.
class LeaseWaiters {
 public:
  // Told to look for a task. `others`: how many more are to be told, one after the other, as long
  // as nobody takes it: whoever looks in vain calls PassOn with it. Returns false when it does not
  // look any more; then the next is told. Runs under the lock of this object: it may only note
  // something and post to an executor.
  using Wake = std::function<bool(int64_t others)>;

  int64_t Add(Wake wake);
  // After it returns the callback is not running and will not run.
  void Remove(int64_t id);

  // `tasks` tasks have become ready.
  void WakeFor(int64_t tasks);
  void PassOn(int64_t others);

 private:
  void WakeNext(int64_t others) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  int64_t next_id_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t last_woken_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int64_t, Wake> waiters_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq
