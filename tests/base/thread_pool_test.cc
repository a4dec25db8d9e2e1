#include "base/thread_pool.h"

#include <atomic>
#include <numeric>
#include <set>
#include <thread>

#include "base/mutex.h"
#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

TEST(ThreadPoolTest, CallsEachIndexOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      pool.ParallelFor(count, [&](int64_t i) { ++calls[static_cast<size_t>(i)]; });
      for (const std::atomic<int>& n : calls) EXPECT_EQ(n, 1) << count << " by " << threads;
    }
  }
}

TEST(ThreadPoolTest, CutsTheSameBlocksForAnyNumberOfThreads) {
  using Block = std::pair<int64_t, int64_t>;
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    Mutex mu;
    std::set<Block> blocks;
    pool.ParallelForBlocks(10, 4, [&](int64_t begin, int64_t end) {
      MutexLock lock(&mu);
      EXPECT_TRUE(blocks.emplace(begin, end).second);
    });
    EXPECT_EQ(blocks, (std::set<Block>{{0, 4}, {4, 8}, {8, 10}}));
  }
}

// It would wait for itself for ever.
TEST(ThreadPoolTest, ALoopInsideALoopRunsWhereItIs) {
  ThreadPool pool(3);
  std::atomic<int> calls{0};
  pool.ParallelFor(4, [&](int64_t) {
    const std::thread::id here = std::this_thread::get_id();
    pool.ParallelFor(5, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), here);
      ++calls;
    });
  });
  EXPECT_EQ(calls, 20);
}

TEST(ThreadPoolTest, CallersWaitTheirTurn) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        int64_t own = 0;
        std::vector<int64_t> seen(20);
        pool.ParallelFor(20, [&](int64_t i) { seen[static_cast<size_t>(i)] = i; });
        own = std::accumulate(seen.begin(), seen.end(), int64_t{0});
        EXPECT_EQ(own, 190);  // all done when it returns
        sum += own;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 50 * 190);
}

}  // namespace
}  // namespace lwq::testing
