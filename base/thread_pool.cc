#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace lwq {
namespace {

thread_local bool inside_parallel_for = false;

}  // namespace

struct ThreadPool::State {
  Mutex caller_mu;  // held by the one running ParallelFor; taken before mu
  Mutex mu;
  CondVar work_ready;
  CondVar work_done;
  const std::function<void(int64_t)>* body ABSL_GUARDED_BY(mu) = nullptr;
  int64_t count ABSL_GUARDED_BY(mu) = 0;
  uint64_t generation ABSL_GUARDED_BY(mu) = 0;
  int active ABSL_GUARDED_BY(mu) = 0;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  std::atomic<int64_t> next{0};
  std::vector<std::thread> threads;

  void Drain(const std::function<void(int64_t)>& run, int64_t total) {
    inside_parallel_for = true;
    for (int64_t i = next.fetch_add(1); i < total; i = next.fetch_add(1)) run(i);
    inside_parallel_for = false;
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(std::max(1, num_threads)), state_(std::make_unique<State>()) {
  for (int i = 1; i < num_threads_; ++i) {
    state_->threads.emplace_back([this] { WorkerLoop(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(&state_->mu);
    state_->stopping = true;
  }
  state_->work_ready.SignalAll();
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::WorkerLoop() {
  State& s = *state_;
  uint64_t seen = 0;
  while (true) {
    const std::function<void(int64_t)>* body;
    int64_t count;
    {
      MutexLock lock(&s.mu);
      while (!s.stopping && (s.generation == seen || s.body == nullptr)) s.work_ready.Wait(&s.mu);
      if (s.stopping) return;
      seen = s.generation;
      body = s.body;
      count = s.count;
      ++s.active;
    }
    s.Drain(*body, count);
    {
      MutexLock lock(&s.mu);
      if (--s.active == 0) s.work_done.SignalAll();
    }
  }
}

void ThreadPool::ParallelFor(int64_t count, const std::function<void(int64_t)>& body) {
  if (count <= 0) return;
  if (num_threads_ == 1 || count == 1 || inside_parallel_for) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  State& s = *state_;
  MutexLock caller(&s.caller_mu);
  {
    MutexLock lock(&s.mu);
    s.body = &body;
    s.count = count;
    s.next = 0;
    ++s.generation;
  }
  s.work_ready.SignalAll();
  s.Drain(body, count);
  MutexLock lock(&s.mu);
  s.body = nullptr;  // a thread that wakes late finds nothing to do
  while (s.active > 0) s.work_done.Wait(&s.mu);
}

void ThreadPool::ParallelForBlocks(int64_t total, int64_t block,
                                   const std::function<void(int64_t, int64_t)>& body) {
  ParallelFor((total + block - 1) / block, [&](int64_t i) {
    body(i * block, std::min(total, (i + 1) * block));
  });
}

}  // namespace lwq
