#include "worker/engine/device/cpu/transpose.h"

#include <cstdint>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace lwq {
namespace {

// Whole squares, rests on either side, several bands of columns; what lies around is left alone.
template <typename T>
void ExpectTransposed(int64_t rows, int64_t cols) {
  const int64_t from_stride = cols + 3, to_stride = rows + 5;
  std::vector<T> from(static_cast<size_t>(rows * from_stride));
  std::iota(from.begin(), from.end(), T{1});
  std::vector<T> to(static_cast<size_t>((cols + 1) * to_stride), T{0});
  Transpose(from.data(), from_stride, rows, cols, to.data(), to_stride);
  for (int64_t c = 0; c <= cols; ++c) {
    for (int64_t r = 0; r < to_stride; ++r) {
      const T want = c < cols && r < rows ? from[static_cast<size_t>(r * from_stride + c)] : T{0};
      ASSERT_EQ(to[static_cast<size_t>(c * to_stride + r)], want) << rows << " x " << cols;
    }
  }
}

TEST(TransposeTest, EverySizeOfRest) {
  for (const int64_t rows : {0, 1, 7, 8, 19, 33}) {
    for (const int64_t cols : {0, 1, 5, 8, 64, 71, 150}) {
      ExpectTransposed<float>(rows, cols);
      ExpectTransposed<uint16_t>(rows, cols);
    }
  }
}

}  // namespace
}  // namespace lwq
