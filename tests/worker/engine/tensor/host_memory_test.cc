#include "worker/engine/tensor/host_memory.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/memory_usage.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(HostMemoryTest, IsAlignedAndAllThereAtEverySize) {
  // Nothing, small, and both sides of where huge pages begin.
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{64}, 8 * kMiB - 1, 8 * kMiB, 8 * kMiB + 1}) {
    void* data = AllocateHost(bytes);
    ASSERT_NE(data, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u) << bytes;
    std::memset(data, 1, bytes);
    FreeHost(data);
  }
  FreeHost(nullptr);
}

// Whether the next block of this size is one that was left marked: fresh pages are zero, and blocks
// this large are always fresh when they are not kept.
bool NextIsKept(size_t bytes) {
  auto* data = static_cast<char*>(AllocateHost(bytes));
  const bool kept = data[bytes / 2] == 7;
  data[bytes / 2] = 7;
  FreeHost(data);
  return kept;
}

TEST(HostMemoryTest, LargeBlocksWaitForTheNextOfTheirSize) {
  TrimHost();
  EXPECT_FALSE(NextIsKept(64 * kMiB));
  EXPECT_TRUE(NextIsKept(64 * kMiB));
  TrimHost();
  EXPECT_FALSE(NextIsKept(64 * kMiB));
}

TEST(HostMemoryTest, ACeilingCountsBlocksOfEverySizeAndWhatIsHeldBesides) {
  TrimHost();
  std::vector<void*> small;
  for (int i = 0; i < 8; ++i) small.push_back(AllocateHost(2 * kMiB));
  void* large = AllocateHost(32 * kMiB);
  SetHostCeiling(64 * kMiB, /*anonymous_bytes=*/0);
  EXPECT_TRUE(HostAllows(12 * kMiB));
  EXPECT_FALSE(HostAllows(16 * kMiB)) << "48 MiB and a little are in use";
  for (void* block : small) FreeHost(block);
  EXPECT_TRUE(HostAllows(16 * kMiB));
  SetHostCeiling(64 * kMiB, 50 * kMiB);  // about 16 of them are no blocks: 34 were blocks
  EXPECT_TRUE(HostAllows(8 * kMiB));
  EXPECT_FALSE(HostAllows(20 * kMiB));
  FreeHost(large);
  EXPECT_TRUE(HostAllows(20 * kMiB));
  SetHostCeiling(0, 0);
  EXPECT_TRUE(HostAllows(size_t{1} << 50));
}

TEST(HostMemoryTest, WhatIsKeptNeverRaisesTheMost) {
  TrimHost();
  EXPECT_FALSE(NextIsKept(64 * kMiB));
  EXPECT_FALSE(NextIsKept(96 * kMiB));  // together they would be 160 where 96 was the most in use
  EXPECT_FALSE(NextIsKept(64 * kMiB));
  // With both in use at once there is room for both.
  void* one = AllocateHost(64 * kMiB);
  void* other = AllocateHost(96 * kMiB);
  FreeHost(one);
  FreeHost(other);
  EXPECT_FALSE(NextIsKept(96 * kMiB));  // marks it
  EXPECT_TRUE(NextIsKept(64 * kMiB));
  EXPECT_TRUE(NextIsKept(96 * kMiB));
  TrimHost();
}

TEST(HostMemoryTest, MallocKeepsWhatIsFreedUntilTrimmed) {
#ifdef LWQ_SANITIZED
  GTEST_SKIP() << "the sanitizer's malloc keeps and gives back as it likes";
#endif
  ASSERT_TRUE(KeepFreedMemory());
  TrimHost();
  const int64_t before = AnonymousMemoryBytes();
  std::vector<std::unique_ptr<char[]>> blocks(32);
  for (auto& block : blocks) {
    block = std::make_unique_for_overwrite<char[]>(4 * kMiB);
    std::memset(block.get(), 1, 4 * kMiB);
  }
  blocks.clear();
  EXPECT_GT(AnonymousMemoryBytes(), before + int64_t{120 * kMiB});
  TrimHost();
  EXPECT_LT(AnonymousMemoryBytes(), before + int64_t{8 * kMiB});
}

}  // namespace
}  // namespace lwq
