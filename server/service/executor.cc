#include "server/service/executor.h"

#include <utility>

namespace lwq {

Executor::Executor(absl::string_view name, int num_threads, int max_queued)
    : name_(name), max_queued_(static_cast<size_t>(max_queued)) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

Executor::~Executor() { Shutdown(); }

bool Executor::Enqueue(std::function<void()> work, bool bounded) {
  MutexLock lock(&mu_);
  if (stopping_ || (bounded && queue_.size() >= max_queued_)) return false;
  queue_.push_back(std::move(work));
  changed_.Signal();
  return true;
}

bool Executor::Post(std::function<void()> work) { return Enqueue(std::move(work), true); }

bool Executor::PostAlways(std::function<void()> work) { return Enqueue(std::move(work), false); }

void Executor::Shutdown() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool Executor::RunNext() {
  std::function<void()> work;
  {
    MutexLock lock(&mu_);
    if (queue_.empty()) return false;
    work = std::move(queue_.front());
    queue_.pop_front();
  }
  work();
  return true;
}

int Executor::queued() const {
  MutexLock lock(&mu_);
  return static_cast<int>(queue_.size());
}

void Executor::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mu_);
      while (queue_.empty() && !stopping_) changed_.Wait(&mu_);
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace lwq
