#include "server/service/executor.h"

#include <atomic>
#include <string>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(ExecutorTest, WhatIsQueuedIsDoneBeforeItEnds) {
  std::atomic<int> done{0};
  {
    Executor executor("e", 2, 100);
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(executor.Post([&] { ++done; }));
  }
  EXPECT_EQ(done, 50);
}

TEST(ExecutorTest, WithoutThreadsNothingRunsUntilItIsTold) {
  std::string done;
  Executor executor("e", 0, 2);
  EXPECT_FALSE(executor.RunNext());
  EXPECT_TRUE(executor.Post([&] {
    done += "a";
    EXPECT_TRUE(executor.PostAlways([&] { done += "c"; }));
  }));
  EXPECT_TRUE(executor.Post([&] { done += "b"; }));
  EXPECT_FALSE(executor.Post([&] { done += "too many"; }));
  EXPECT_TRUE(executor.PostAlways([&] { done += "!"; }));
  EXPECT_EQ(executor.queued(), 3);
  EXPECT_EQ(done, "");
  EXPECT_TRUE(executor.RunNext());
  EXPECT_EQ(done, "a");
  while (executor.RunNext()) continue;
  EXPECT_EQ(done, "ab!c");
  executor.Shutdown();
  EXPECT_FALSE(executor.Post([&] { done += "late"; }));
}

}  // namespace
}  // namespace lwq
