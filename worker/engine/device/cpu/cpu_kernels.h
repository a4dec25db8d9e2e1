// The vector kernels behind the CPU device's decoder operations: one row, or one block of queries,
// on one thread, with the instruction set chosen at run time. Private to device/cpu.
#pragma once

#include <cstdint>

#include "worker/engine/device/device.h"

namespace lwq {

// out = x * weight / sqrt(mean(x^2) + epsilon).
void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t n, float* out);
// Rotates pairs (x[i], x[i + half]).
void RotateHead(const float* cosine, const float* sine, int64_t half, float* x);
// out = activation(gate) * up.
void GateRow(Activation activation, const float* gate, const float* up, int64_t n, float* out);
// x = cap * tanh(x / cap).
void SoftCapRow(float cap, int64_t n, float* x);
// x as a linear of that rule, which is not kNone, multiplies it.
void RoundRow(ActivationRule rule, int64_t n, float* x);
// out = x rounded to BF16, to nearest even; NaN stays NaN.
void RoundToBF16Row(const float* x, int64_t n, uint16_t* out);
// y += x.
void AddRow(const float* x, int64_t n, float* y);
// out = a - b.
void SubtractRow(const float* a, const float* b, int64_t n, float* out);
// x -= log(sum(exp(x))); the sum over blocks of 512 in F64.
void LogSoftmaxRow(int64_t n, float* x);
// sum exp(p) (p - q), in F64.
double KlRow(const float* p, const float* q, int64_t n);
float MaxRow(const float* x, int64_t n);
// sum exp(x - top), over blocks of 512 in F64.
double ExpSumRow(const float* x, float top, int64_t n);
// sum exp(p - top) (p - q), in F64.
double GapSumRow(const float* p, const float* q, float top, int64_t n);
// Cosine in F64; 0 when either is zero.
double CosineRow(const float* x, const float* y, int64_t n);

// Keys and values are padded with zeros to multiples of this.
inline constexpr int64_t kAttentionPad = 32;
// Queries in one block.
inline constexpr int64_t kAttentionRows = 32;

// A block of queries of one head against the keys before and among them.
struct AttentionBlock {
  const float* query;  // [rows, head_dim], stride query_stride
  int64_t query_stride;
  int64_t rows;          // 1 to kAttentionRows
  const float* keys;     // [head_dim, key_stride]: transposed
  int64_t key_stride;    // padded
  const float* values;   // [key_stride, value_stride]
  int64_t value_stride;  // head_dim, padded
  int64_t head_dim;
  int64_t first_seen;  // keys that the first query sees; the next sees one more
  int64_t window;      // 0: no limit
  float scale;
  float softcap;  // 0: none
  float* scores;  // scratch [kAttentionRows, key_stride]
  float* sums;    // scratch [kAttentionRows, value_stride]
  float* out;     // [rows, head_dim], stride out_stride
  int64_t out_stride;
};
void AttendBlock(const AttentionBlock& block);

}  // namespace lwq
