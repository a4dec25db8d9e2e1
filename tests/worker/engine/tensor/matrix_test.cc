#include "worker/engine/tensor/matrix.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(AllocateHost, IsAlignedAndAllThereAtEverySize) {
  // Nothing, small, and both sides of where huge pages begin.
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, (size_t{16} << 20) - 1,
                             size_t{16} << 20, (size_t{16} << 20) + 1}) {
    void* data = AllocateHost(bytes);
    ASSERT_NE(data, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u) << bytes;
    std::memset(data, 1, bytes);
    std::free(data);
  }
}

}  // namespace
}  // namespace lwq
