// A fixed set of threads for compute loops. The work is always cut the same way, whatever the number
// of threads, so results are bit-identical for any pool size.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace lwq {

class ThreadPool {
 public:
  // `num_threads` >= 1 counts the calling thread: 1 makes no thread at all.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(i) once for each i in [0, count), on any thread in any order, and returns when all
  // are done. The caller works too. Bodies must not throw. A ParallelFor inside a body runs inline.
  // One ParallelFor at a time; concurrent callers wait their turn.
  void ParallelFor(int64_t count, const std::function<void(int64_t)>& body);

  // Cuts [0, total) into blocks of `block` (the last may be shorter) and calls body(begin, end).
  void ParallelForBlocks(int64_t total, int64_t block,
                         const std::function<void(int64_t, int64_t)>& body);

 private:
  struct State;
  void WorkerLoop();

  const int num_threads_;
  std::unique_ptr<State> state_;
};

}  // namespace lwq
