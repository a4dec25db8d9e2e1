#include "worker/engine/device/cpu/cpu_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/device/cpu/cpu_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h: it is written for the target that is being compiled.
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwq {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that two vectors fit kAttentionPad.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
// F64, and the F32 vector with as many lanes.
using DD = hn::CappedTag<double, 8>;
using DH = hn::Rebind<float, DD>;
using VD = hn::Vec<DD>;

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(D())); }

// Calls body(i, mask) for each vector of [0, n); the last mask may be partial.
template <class Tag, class Body>
HWY_INLINE void ForVectors(Tag tag, int64_t n, Body&& body) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  const auto all = hn::FirstN(tag, static_cast<size_t>(lanes));
  for (; i + lanes <= n; i += lanes) body(i, all);
  if (i < n) body(i, hn::FirstN(tag, static_cast<size_t>(n - i)));
}

HWY_INLINE float Sum(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }
HWY_INLINE double Sum(VD v) { return hn::GetLane(hn::SumOfLanes(DD(), v)); }

void RmsNormRowT(const float* x, const float* weight, float epsilon, int64_t n, float* out) {
  const D d;
  V squares = hn::Zero(d);
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V v = hn::MaskedLoad(mask, d, x + i);
    squares = hn::MulAdd(v, v, squares);
  });
  const float mean = Sum(squares) / static_cast<float>(n);
  const V scale = hn::Set(d, 1.0f / std::sqrt(mean + epsilon));
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V v = hn::Mul(hn::MaskedLoad(mask, d, x + i), scale);
    hn::BlendedStore(hn::Mul(v, hn::MaskedLoad(mask, d, weight + i)), mask, d, out + i);
  });
}

void RotateHeadT(const float* cosine, const float* sine, int64_t half, float* x) {
  const D d;
  ForVectors(d, half, [&](int64_t i, auto mask) HWY_ATTR {
    const V c = hn::MaskedLoad(mask, d, cosine + i), s = hn::MaskedLoad(mask, d, sine + i);
    const V a = hn::MaskedLoad(mask, d, x + i), b = hn::MaskedLoad(mask, d, x + half + i);
    hn::BlendedStore(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), mask, d, x + i);
    hn::BlendedStore(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), mask, d, x + half + i);
  });
}

// out = gate / (1 + exp(-exponent(gate))) * up.
template <class Exponent>
HWY_INLINE void GateBy(const Exponent& exponent, const float* gate, const float* up, int64_t n,
                       float* out) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  // Past this exp(-exponent) overflows; the quotient is then 0 to F32 anyway.
  const V floor = hn::Set(d, -88.0f);
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V g = hn::MaskedLoad(mask, d, gate + i);
    const V e = hn::Exp(d, hn::Neg(hn::Max(exponent(g), floor)));
    const V gated = hn::Div(g, hn::Add(one, e));
    hn::BlendedStore(hn::Mul(gated, hn::MaskedLoad(mask, d, up + i)), mask, d, out + i);
  });
}

void GateRowT(Activation activation, const float* gate, const float* up, int64_t n, float* out) {
  if (activation == Activation::kSilu) {
    GateBy([](V g) HWY_ATTR { return g; }, gate, up, n, out);
    return;
  }
  const D d;
  const V linear = hn::Set(d, 1.5957691216057308f);  // 2 sqrt(2 / pi)
  const V cubic = hn::Set(d, 0.071354816272600248f);
  const auto twice_u = [&](V g) HWY_ATTR {
    return hn::Mul(g, hn::MulAdd(cubic, hn::Mul(g, g), linear));
  };
  GateBy(twice_u, gate, up, n, out);
}

void SoftCapRowT(float cap, int64_t n, float* x) {
  const D d;
  const V caps = hn::Set(d, cap);
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V v = hn::Tanh(d, hn::Div(hn::MaskedLoad(mask, d, x + i), caps));
    hn::BlendedStore(hn::Mul(caps, v), mask, d, x + i);
  });
}

// The nearest value of E4M3 to each lane, which lies in its range: at 2^-9 below 2^-6, else three
// bits behind the first.
HWY_INLINE V NearestE4M3(V v) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const auto one = hn::Set(du, 1u), half = hn::Set(du, 0x7ffffu), kept = hn::Set(du, 0xfff00000u);
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), one);
  const V normal = hn::BitCast(d, hn::And(hn::Add(bits, hn::Add(odd, half)), kept));
  const V steps = hn::Round(hn::Mul(v, hn::Set(d, 0x1p9f)));
  const V small = hn::Mul(steps, hn::Set(d, 0x1p-9f));
  return hn::IfThenElse(hn::Lt(hn::Abs(v), hn::Set(d, 0x1p-6f)), small, normal);
}

// x = round(x / scale) * scale, with the scale at which the largest becomes `range`.
template <class Round>
HWY_INLINE void RoundRowBy(float range, Round round, int64_t n, float* x) {
  const D d;
  V largest = hn::Zero(d);
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    largest = hn::Max(largest, hn::Abs(hn::MaskedLoad(mask, d, x + i)));
  });
  const float scale = hn::GetLane(hn::MaxOfLanes(d, largest)) / range;
  if (scale == 0) return;
  const V scales = hn::Set(d, scale);
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V quotient = hn::Div(hn::MaskedLoad(mask, d, x + i), scales);
    hn::BlendedStore(hn::Mul(round(quotient), scales), mask, d, x + i);
  });
}

void RoundRowT(ActivationRule rule, int64_t n, float* x) {
  const D d;
  if (rule == ActivationRule::kInt8PerToken) {
    const V least = hn::Set(d, -128.0f), most = hn::Set(d, 127.0f);
    const auto round = [&](V v) HWY_ATTR { return hn::Round(hn::Min(hn::Max(v, least), most)); };
    RoundRowBy(kInt8Range, round, n, x);
    return;
  }
  const V most = hn::Set(d, kE4M3Largest), least = hn::Neg(most);
  const auto round = [&](V v) HWY_ATTR { return NearestE4M3(hn::Min(hn::Max(v, least), most)); };
  RoundRowBy(kE4M3Largest, round, n, x);
}

void RoundToBF16RowT(const float* x, int64_t n, uint16_t* out) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> dh;
  const auto one = hn::Set(du, 1u), half = hn::Set(du, 0x7fffu), quiet = hn::Set(du, 0x00400000u);
  int64_t i = 0;
  for (; i + Lanes() <= n; i += Lanes()) {
    const V v = hn::LoadU(d, x + i);
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), one);
    const auto rounded = hn::Add(bits, hn::Add(odd, half));
    const auto nan = hn::RebindMask(du, hn::IsNaN(v));
    const auto kept = hn::IfThenElse(nan, hn::Or(bits, quiet), rounded);
    hn::StoreU(hn::TruncateTo(dh, hn::ShiftRight<16>(kept)), dh, out + i);
  }
  // One by one: masked stores of 16-bit lanes may rewrite what lies behind them, another thread's
  // row.
  for (; i < n; ++i) out[i] = FloatToBF16(x[i]);
}

void AddRowT(const float* x, int64_t n, float* y) {
  const D d;
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V sum = hn::Add(hn::MaskedLoad(mask, d, x + i), hn::MaskedLoad(mask, d, y + i));
    hn::BlendedStore(sum, mask, d, y + i);
  });
}

void SubtractRowT(const float* a, const float* b, int64_t n, float* out) {
  const D d;
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V difference = hn::Sub(hn::MaskedLoad(mask, d, a + i), hn::MaskedLoad(mask, d, b + i));
    hn::BlendedStore(difference, mask, d, out + i);
  });
}

HWY_INLINE float MaxOf(const float* x, int64_t n) {
  const D d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V top = lowest;
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    top = hn::Max(top, hn::IfThenElse(mask, hn::MaskedLoad(mask, d, x + i), lowest));
  });
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

float MaxRowT(const float* x, int64_t n) { return MaxOf(x, n); }

double ExpSumRowT(const float* x, float top, int64_t n) {
  constexpr int64_t kBlock = 512;
  const D d;
  const V shift = hn::Set(d, top);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    V sum = hn::Zero(d);
    ForVectors(d, std::min(kBlock, n - begin), [&](int64_t i, auto mask) HWY_ATTR {
      const V v = hn::Sub(hn::MaskedLoad(mask, d, x + begin + i), shift);
      sum = hn::Add(sum, hn::IfThenElseZero(mask, hn::Exp(d, v)));
    });
    total += Sum(sum);
  }
  return total;
}

void LogSoftmaxRowT(int64_t n, float* x) {
  const D d;
  const float top = MaxOf(x, n);
  const V shift = hn::Set(d, top);
  const double total = ExpSumRowT(x, top, n);
  // Two steps, so that the log of the sum is not rounded at the size of the maximum.
  const V log_total = hn::Set(d, static_cast<float>(std::log(total)));
  ForVectors(d, n, [&](int64_t i, auto mask) HWY_ATTR {
    const V v = hn::Sub(hn::Sub(hn::MaskedLoad(mask, d, x + i), shift), log_total);
    hn::BlendedStore(v, mask, d, x + i);
  });
}

double KlRowT(const float* p, const float* q, int64_t n) {
  const DD dd;
  const DH dh;
  VD total = hn::Zero(dd);
  ForVectors(dh, n, [&](int64_t i, auto mask) HWY_ATTR {
    const auto log_p = hn::MaskedLoad(mask, dh, p + i), log_q = hn::MaskedLoad(mask, dh, q + i);
    const auto weight = hn::Exp(dh, log_p);
    const auto some = hn::Gt(weight, hn::Zero(dh));  // what has no probability has no share
    const auto gap = hn::IfThenElseZero(some, hn::Sub(log_p, log_q));
    total = hn::MulAdd(hn::PromoteTo(dd, weight), hn::PromoteTo(dd, gap), total);
  });
  return Sum(total);
}

double GapSumRowT(const float* p, const float* q, float top, int64_t n) {
  const DD dd;
  const DH dh;
  const auto shift = hn::Set(dh, top);
  VD total = hn::Zero(dd);
  ForVectors(dh, n, [&](int64_t i, auto mask) HWY_ATTR {
    const auto a = hn::MaskedLoad(mask, dh, p + i), b = hn::MaskedLoad(mask, dh, q + i);
    const auto weight = hn::IfThenElseZero(mask, hn::Exp(dh, hn::Sub(a, shift)));
    const auto some = hn::Gt(weight, hn::Zero(dh));  // what has no probability has no share
    const auto gap = hn::IfThenElseZero(some, hn::Sub(a, b));
    total = hn::MulAdd(hn::PromoteTo(dd, weight), hn::PromoteTo(dd, gap), total);
  });
  return Sum(total);
}

double CosineRowT(const float* x, const float* y, int64_t n) {
  const DD dd;
  const DH dh;
  VD xy = hn::Zero(dd), xx = hn::Zero(dd), yy = hn::Zero(dd);
  ForVectors(dh, n, [&](int64_t i, auto mask) HWY_ATTR {
    const VD a = hn::PromoteTo(dd, hn::MaskedLoad(mask, dh, x + i));
    const VD b = hn::PromoteTo(dd, hn::MaskedLoad(mask, dh, y + i));
    xy = hn::MulAdd(a, b, xy);
    xx = hn::MulAdd(a, a, xx);
    yy = hn::MulAdd(b, b, yy);
  });
  const double norms = std::sqrt(Sum(xx)) * std::sqrt(Sum(yy));
  return norms > 0 ? Sum(xy) / norms : 0;
}

// c [R, n] = a [R, k] b [k, n] for n a multiple of two vectors; R rows of a tile stay in registers.
template <int R>
HWY_INLINE void MultiplyRows(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                             int64_t n, int64_t k, float* c, int64_t c_stride) {
  const D d;
  const int64_t lanes = Lanes();
  for (int64_t col = 0; col < n; col += 2 * lanes) {
    V left[R], right[R];
    for (int r = 0; r < R; ++r) left[r] = right[r] = hn::Zero(d);
    for (int64_t i = 0; i < k; ++i) {
      const V b0 = hn::LoadU(d, b + i * b_stride + col);
      const V b1 = hn::LoadU(d, b + i * b_stride + col + lanes);
      for (int r = 0; r < R; ++r) {
        const V v = hn::Set(d, a[r * a_stride + i]);
        left[r] = hn::MulAdd(v, b0, left[r]);
        right[r] = hn::MulAdd(v, b1, right[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      hn::StoreU(left[r], d, c + r * c_stride + col);
      hn::StoreU(right[r], d, c + r * c_stride + col + lanes);
    }
  }
}

void Multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t m,
              int64_t n, int64_t k, float* c, int64_t c_stride) {
  int64_t r = 0;
  for (; r + 4 <= m; r += 4) {
    MultiplyRows<4>(a + r * a_stride, a_stride, b, b_stride, n, k, c + r * c_stride, c_stride);
  }
  for (; r < m; ++r) {
    MultiplyRows<1>(a + r * a_stride, a_stride, b, b_stride, n, k, c + r * c_stride, c_stride);
  }
}

// Scores [0, n) of one query become exp(score - max), zero outside [begin, end). Returns their sum.
float SoftmaxScores(const AttentionBlock& block, int64_t begin, int64_t end, int64_t n,
                    float* scores) {
  const D d;
  const int64_t lanes = Lanes();
  const V scale = hn::Set(d, block.scale);
  const V cap = hn::Set(d, block.softcap);
  for (int64_t i = 0; i < n; i += lanes) {
    V v = hn::Mul(hn::LoadU(d, scores + i), scale);
    if (block.softcap > 0) v = hn::Mul(cap, hn::Tanh(d, hn::Div(v, cap)));
    hn::StoreU(v, d, scores + i);
  }
  std::fill(scores, scores + begin, -std::numeric_limits<float>::infinity());
  std::fill(scores + end, scores + n, -std::numeric_limits<float>::infinity());
  const V top = hn::Set(d, MaxOf(scores, n));
  V sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const V e = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), top));
    hn::StoreU(e, d, scores + i);
    sum = hn::Add(sum, e);
  }
  return Sum(sum);
}

void AttendBlockT(const AttentionBlock& block) {
  const D d;
  const int64_t last = block.first_seen + block.rows - 1;  // keys that the last query sees
  const int64_t low = block.window > 0 ? std::max<int64_t>(0, block.first_seen - block.window) : 0;
  const int64_t begin = low / kAttentionPad * kAttentionPad;
  const int64_t n = (last - begin + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
  Multiply(block.query, block.query_stride, block.keys + begin, block.key_stride, block.rows, n,
           block.head_dim, block.scores, block.key_stride);
  float totals[kAttentionRows];
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t end = block.first_seen + r;
    const int64_t from = block.window > 0 ? std::max<int64_t>(0, end - block.window) : 0;
    totals[r] =
        SoftmaxScores(block, from - begin, end - begin, n, block.scores + r * block.key_stride);
  }
  Multiply(block.scores, block.key_stride, block.values + begin * block.value_stride,
           block.value_stride, block.rows, block.value_stride, n, block.sums, block.value_stride);
  for (int64_t r = 0; r < block.rows; ++r) {
    const V inverse = hn::Set(d, 1.0f / totals[r]);
    const float* sums = block.sums + r * block.value_stride;
    float* out = block.out + r * block.out_stride;
    ForVectors(d, block.head_dim, [&](int64_t i, auto mask) HWY_ATTR {
      hn::BlendedStore(hn::Mul(hn::LoadU(d, sums + i), inverse), mask, d, out + i);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lwq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwq {

HWY_EXPORT(RmsNormRowT);
HWY_EXPORT(RotateHeadT);
HWY_EXPORT(GateRowT);
HWY_EXPORT(SoftCapRowT);
HWY_EXPORT(RoundRowT);
HWY_EXPORT(RoundToBF16RowT);
HWY_EXPORT(AddRowT);
HWY_EXPORT(SubtractRowT);
HWY_EXPORT(LogSoftmaxRowT);
HWY_EXPORT(KlRowT);
HWY_EXPORT(MaxRowT);
HWY_EXPORT(ExpSumRowT);
HWY_EXPORT(GapSumRowT);
HWY_EXPORT(CosineRowT);
HWY_EXPORT(AttendBlockT);

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormRowT)(x, weight, epsilon, n, out);
}
void RotateHead(const float* cosine, const float* sine, int64_t half, float* x) {
  HWY_DYNAMIC_DISPATCH(RotateHeadT)(cosine, sine, half, x);
}
void GateRow(Activation activation, const float* gate, const float* up, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(GateRowT)(activation, gate, up, n, out);
}
void SoftCapRow(float cap, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(SoftCapRowT)(cap, n, x); }
void RoundRow(ActivationRule rule, int64_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(RoundRowT)(rule, n, x);
}
void RoundToBF16Row(const float* x, int64_t n, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(RoundToBF16RowT)(x, n, out);
}
void AddRow(const float* x, int64_t n, float* y) { HWY_DYNAMIC_DISPATCH(AddRowT)(x, n, y); }
void SubtractRow(const float* a, const float* b, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(SubtractRowT)(a, b, n, out);
}
void LogSoftmaxRow(int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(LogSoftmaxRowT)(n, x); }
double KlRow(const float* p, const float* q, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(KlRowT)(p, q, n);
}
float MaxRow(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(MaxRowT)(x, n); }
double ExpSumRow(const float* x, float top, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(ExpSumRowT)(x, top, n);
}
double GapSumRow(const float* p, const float* q, float top, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(GapSumRowT)(p, q, top, n);
}
double CosineRow(const float* x, const float* y, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(CosineRowT)(x, y, n);
}
void AttendBlock(const AttentionBlock& block) { HWY_DYNAMIC_DISPATCH(AttendBlockT)(block); }

}  // namespace lwq
#endif  // HWY_ONCE
