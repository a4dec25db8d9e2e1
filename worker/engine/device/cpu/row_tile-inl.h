// A few rows of a matrix as columns across vector lanes, and back: what lets every row take its own
// steps in a loop over columns without a scalar part. Included once for each instruction set, after
// hwy/highway.h; for cpu_quantize.cc and cpu_refine.cc.
#if defined(LWQ_DEVICE_CPU_ROW_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LWQ_DEVICE_CPU_ROW_TILE_INL_H_
#undef LWQ_DEVICE_CPU_ROW_TILE_INL_H_
#else
#define LWQ_DEVICE_CPU_ROW_TILE_INL_H_
#endif

#include <cstdint>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
namespace row_tile {
namespace hn = hwy::HWY_NAMESPACE;

using D4 = hn::FixedTag<float, 4>;
using I4 = hn::Rebind<int32_t, D4>;
using U4 = hn::Rebind<uint8_t, D4>;
using V4 = hn::Vec<D4>;

HWY_INLINE V4 LoadFloats(const float* from) { return hn::LoadU(D4(), from); }
HWY_INLINE V4 LoadFloats(const uint8_t* from) {
  return hn::ConvertTo(D4(), hn::PromoteTo(I4(), hn::LoadU(U4(), from)));
}
HWY_INLINE void StoreFloats(V4 v, float* to) { hn::StoreU(v, D4(), to); }
HWY_INLINE void StoreFloats(V4 v, uint8_t* to) {
  hn::StoreU(hn::DemoteTo(U4(), hn::ConvertTo(I4(), v)), U4(), to);
}

HWY_INLINE void Transpose(V4 (&v)[4]) {
  const D4 d;
  const V4 ab_low = hn::InterleaveLower(d, v[0], v[1]),
           ab_high = hn::InterleaveUpper(d, v[0], v[1]);
  const V4 cd_low = hn::InterleaveLower(d, v[2], v[3]),
           cd_high = hn::InterleaveUpper(d, v[2], v[3]);
  v[0] = hn::ConcatLowerLower(d, cd_low, ab_low);
  v[1] = hn::ConcatUpperUpper(d, cd_low, ab_low);
  v[2] = hn::ConcatLowerLower(d, cd_high, ab_high);
  v[3] = hn::ConcatUpperUpper(d, cd_high, ab_high);
}

}  // namespace row_tile
#endif

// tile[j * lanes + r] = row(r)[j] for j in [0, cols): row(r) points to float or uint8_t.
template <typename RowOf>
HWY_INLINE void LoadTile(int64_t rows, int64_t cols, int64_t lanes, RowOf&& row, float* tile) {
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; r + 4 <= rows; r += 4) {
    const auto *a = row(r), *b = row(r + 1), *c = row(r + 2), *d = row(r + 3);
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
      row_tile::V4 v[4] = {row_tile::LoadFloats(a + j), row_tile::LoadFloats(b + j),
                           row_tile::LoadFloats(c + j), row_tile::LoadFloats(d + j)};
      row_tile::Transpose(v);
      for (int64_t i = 0; i < 4; ++i) row_tile::StoreFloats(v[i], tile + (j + i) * lanes + r);
    }
    for (; j < cols; ++j) {
      float* to = tile + j * lanes + r;
      to[0] = a[j], to[1] = b[j], to[2] = c[j], to[3] = d[j];
    }
  }
#endif
  for (; r < rows; ++r) {
    const auto* from = row(r);
    for (int64_t j = 0; j < cols; ++j) tile[j * lanes + r] = from[j];
  }
}

// row(r)[j] = tile[j * lanes + r], whole numbers from 0 to 255 where it points to uint8_t.
template <typename RowOf>
HWY_INLINE void StoreTile(const float* tile, int64_t rows, int64_t cols, int64_t lanes,
                          RowOf&& row) {
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; r + 4 <= rows; r += 4) {
    auto *a = row(r), *b = row(r + 1), *c = row(r + 2), *d = row(r + 3);
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
      row_tile::V4 v[4];
      for (int64_t i = 0; i < 4; ++i) v[i] = row_tile::LoadFloats(tile + (j + i) * lanes + r);
      row_tile::Transpose(v);
      row_tile::StoreFloats(v[0], a + j);
      row_tile::StoreFloats(v[1], b + j);
      row_tile::StoreFloats(v[2], c + j);
      row_tile::StoreFloats(v[3], d + j);
    }
    for (; j < cols; ++j) {
      const float* from = tile + j * lanes + r;
      a[j] = static_cast<std::remove_reference_t<decltype(*a)>>(from[0]);
      b[j] = static_cast<std::remove_reference_t<decltype(*a)>>(from[1]);
      c[j] = static_cast<std::remove_reference_t<decltype(*a)>>(from[2]);
      d[j] = static_cast<std::remove_reference_t<decltype(*a)>>(from[3]);
    }
  }
#endif
  for (; r < rows; ++r) {
    auto* to = row(r);
    for (int64_t j = 0; j < cols; ++j) {
      to[j] = static_cast<std::remove_reference_t<decltype(*to)>>(tile[j * lanes + r]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#endif
