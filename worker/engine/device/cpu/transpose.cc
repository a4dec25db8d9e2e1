// A square of one vector's lanes is turned in registers: in each of log2(lanes) rounds vector i and
// the one half of the square behind it interleave into vectors 2i and 2i + 1.
#include "worker/engine/device/cpu/transpose.h"

#include <algorithm>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/device/cpu/transpose.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR
template <typename T>
inline constexpr int64_t kSide = 1;
#else
// Of 128 bits: wider ones interleave within such parts.
template <typename T>
inline constexpr int64_t kSide = 16 / sizeof(T);

template <typename T>
HWY_INLINE void TransposeSquare(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int64_t n = kSide<T>;
  const hn::FixedTag<T, n> d;
  hn::Vec<decltype(d)> v[n], w[n];
  for (int64_t i = 0; i < n; ++i) v[i] = hn::LoadU(d, from + i * from_stride);
  for (int64_t round = 1; round < n; round *= 2) {
    for (int64_t i = 0; i < n / 2; ++i) {
      w[2 * i] = hn::InterleaveLower(d, v[i], v[i + n / 2]);
      w[2 * i + 1] = hn::InterleaveUpper(d, v[i], v[i + n / 2]);
    }
    std::swap(v, w);
  }
  for (int64_t i = 0; i < n; ++i) hn::StoreU(v[i], d, to + i * to_stride);
}
#endif

template <typename T>
HWY_INLINE void TransposeAny(const T* from, int64_t from_stride, int64_t rows, int64_t cols, T* to,
                             int64_t to_stride) {
  // Columns at once: the lines that their squares write stay in the first-level cache from one row
  // of squares to the next.
  constexpr int64_t kColumns = 64;
  for (int64_t first = 0; first < cols; first += kColumns) {
    const int64_t end = std::min(cols, first + kColumns);
    int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
    const int64_t squares_end = first + (end - first) / kSide<T> * kSide<T>;
    for (; r + kSide<T> <= rows; r += kSide<T>) {
      for (int64_t c = first; c < squares_end; c += kSide<T>) {
        TransposeSquare(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
      }
      for (int64_t c = squares_end; c < end; ++c) {
        for (int64_t i = r; i < r + kSide<T>; ++i)
          to[c * to_stride + i] = from[i * from_stride + c];
      }
    }
#endif
    for (; r < rows; ++r) {
      for (int64_t c = first; c < end; ++c) to[c * to_stride + r] = from[r * from_stride + c];
    }
  }
}

void TransposeF32(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float* to,
                  int64_t to_stride) {
  TransposeAny(from, from_stride, rows, cols, to, to_stride);
}
void TransposeU16(const uint16_t* from, int64_t from_stride, int64_t rows, int64_t cols,
                  uint16_t* to, int64_t to_stride) {
  TransposeAny(from, from_stride, rows, cols, to, to_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwq {

HWY_EXPORT(TransposeF32);
HWY_EXPORT(TransposeU16);

void Transpose(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float* to,
               int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(TransposeF32)(from, from_stride, rows, cols, to, to_stride);
}
void Transpose(const uint16_t* from, int64_t from_stride, int64_t rows, int64_t cols, uint16_t* to,
               int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(TransposeU16)(from, from_stride, rows, cols, to, to_stride);
}

}  // namespace lwq
#endif  // HWY_ONCE
