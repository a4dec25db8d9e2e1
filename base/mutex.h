// std::mutex with Abseil's thread-safety annotations. Not absl::Mutex: the packaged library is not
// built with the thread sanitizer, which then reports races that are none.
#pragma once

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace lwq {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mu_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}

 private:
  friend class CondVar;
  std::mutex mu_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_->Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

// Waits release and retake the mutex; callers loop on their condition. Timed ones are measured by
// the clock that is never set. On pthreads' own, because std::condition_variable's timed wait on a
// steady clock is one that the thread sanitizer does not know.
class CondVar {
 public:
  CondVar() {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&cv_, &attributes);
    pthread_condattr_destroy(&attributes);
  }
  ~CondVar() { pthread_cond_destroy(&cv_); }
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex* mu) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    pthread_cond_wait(&cv_, mu->mu_.native_handle());
  }
  // Returns false when `timeout` passed without a signal.
  bool WaitFor(Mutex* mu, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    timeout = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(24 * 365));
    const timespec end = absl::ToTimespec(absl::DurationFromTimespec(now) + timeout);
    return pthread_cond_timedwait(&cv_, mu->mu_.native_handle(), &end) == 0;
  }
  void Signal() { pthread_cond_signal(&cv_); }
  void SignalAll() { pthread_cond_broadcast(&cv_); }

 private:
  pthread_cond_t cv_;
};

}  // namespace lwq
