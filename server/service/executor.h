// Threads for work that blocks, behind a bounded queue: RPC handlers post here and return.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/mutex.h"

namespace lwq {

// Thread-safe.
class Executor {
 public:
  Executor(absl::string_view name, int num_threads, int max_queued);
  // Runs what is queued, then joins. With 0 threads nothing runs but by RunNext, and what is queued
  // at the end is dropped.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // False when the queue is full or the executor is shutting down; `work` is then not run.
  bool Post(std::function<void()> work);
  // For work that the server itself owes and that must not be dropped: not bounded. False only
  // after Shutdown.
  bool PostAlways(std::function<void()> work);
  // No new work; returns when all threads have ended.
  void Shutdown();
  // For an executor without threads: runs the oldest work on the caller's. False when there is
  // none.
  bool RunNext();

  int queued() const;
  const std::string& name() const { return name_; }

 private:
  bool Enqueue(std::function<void()> work, bool bounded);
  void Run();

  const std::string name_;
  const size_t max_queued_;
  mutable Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

}  // namespace lwq
