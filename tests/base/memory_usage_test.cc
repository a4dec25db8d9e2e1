#include "base/memory_usage.h"

#include <sys/mman.h>

#include <cstring>

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

constexpr size_t kBytes = size_t{32} << 20;

TEST(MemoryUsageTest, CountsWhatIsTouchedAndNotWhatIsOnlyReserved) {
  const int64_t before = AnonymousMemoryBytes();
  if (before == 0) GTEST_SKIP() << "this system does not tell";
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_LT(AnonymousMemoryBytes() - before, static_cast<int64_t>(kBytes / 4));
  std::memset(memory, 1, kBytes);
  EXPECT_GT(AnonymousMemoryBytes() - before, static_cast<int64_t>(kBytes * 3 / 4));
  munmap(memory, kBytes);
  EXPECT_LT(AnonymousMemoryBytes() - before, static_cast<int64_t>(kBytes / 4));
}

}  // namespace
}  // namespace lwq::testing
