// What the engine asks of a compute device, and nothing else: about thirty coarse operations on F32
// matrices in the device's memory. `reference` (scalar, double; the judge of all others), `cpu`
// and, later, `cuda` implement it.
//
// Memory: every view passed to an operation points into memory that NewMatrix of the same device
// made; host data crosses only by Upload and Download. On the CPU both are host memory and a copy.
// Shapes are checked by the caller except where an error is documented; sizes are in elements.
// Results are bit-identical for any number of threads. Thread-safety: one caller at a time.
// Errors: INVALID_ARGUMENT for shapes that do not fit, RESOURCE_EXHAUSTED for memory, INTERNAL for
// a fault of the library below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

class ThreadPool;

// What the inputs of matrix products are rounded to. Sums are always F32 or wider.
enum class ComputeType { kF32, kBF16 };
absl::string_view NameOf(ComputeType type);

// A matrix in device memory.
class DeviceMatrix {
 public:
  virtual ~DeviceMatrix() = default;
  virtual MatrixView view() = 0;
  ConstMatrixView view() const { return const_cast<DeviceMatrix*>(this)->view(); }
  MatrixView Rows(int64_t begin, int64_t count) { return view().Rows(begin, count); }
};

// A linear's weight [out_features, in_features] in the layout that the device multiplies fastest.
// Immutable; may be shared between layers.
class PreparedWeight {
 public:
  virtual ~PreparedWeight() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual int64_t size_bytes() const = 0;
};

// The left side [rows, features] of products, as the device multiplies it fastest. Written by
// SetColumns, read by Linear.
class PreparedInput {
 public:
  virtual ~PreparedInput() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t features() const = 0;
};

// A prepared weight and what is added to its product: bias [out_features] in device memory, or
// null.
struct BiasedWeight {
  BiasedWeight(const PreparedWeight& w, const float* b = nullptr)  // NOLINT: most have no bias
      : weight(&w), bias(b) {}
  const PreparedWeight* weight;
  const float* bias;
};

// A packed run of sequences: segment i covers token rows [begin, begin + size). Its tokens see each
// other causally and, before them, all tokens of `parent` (an earlier segment, or -1) and of the
// parent's parents: that is how choices share a context that is computed once.
struct Segment {
  int64_t begin = 0;
  int64_t size = 0;
  int32_t parent = -1;
  int32_t first_position = 0;  // rotary position of the first token
};

struct AttentionShape {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;          // usually 1/sqrt(head_dim)
  int sliding_window = 0;   // 0: none; else a token sees itself and the window-1 positions before
  float logit_softcap = 0;  // 0: none; else cap * tanh(score / cap)
};

// Rotary embedding in the half-split form of Hugging Face: pairs are (i, i + head_dim / 2).
struct RopeTable {
  absl::Span<const float> inverse_frequency;  // [head_dim / 2], host memory
  float attention_factor = 1;                 // multiplies cosine and sine
};

// A grid of `bits` per group of `group_size` columns inside a row (0: one group a row).
// Value = scale * (code - zero), code in [0, 2^bits). Symmetric: zero = 2^(bits-1), not stored.
struct GridSpec {
  int bits = 4;
  int64_t group_size = 128;
  bool symmetric = true;
  // Scales by search (methods: shrink factors, weighted squared error), else min-max.
  bool search = true;

  int64_t GroupSizeFor(int64_t in_features) const {
    return group_size == 0 ? in_features : group_size;
  }
  int64_t NumGroups(int64_t in_features) const { return in_features / GroupSizeFor(in_features); }
};

// B columns of a weight [rows, cols] in GPTQ's order of processing; see Device::GptqBlock.
struct GptqColumns {
  MatrixView w;       // [rows, B]: as updated so far; their values on the grid afterwards
  ConstMatrixView u;  // [B, B]: these rows and columns of U
  GridSpec grid;
  ConstMatrixView scales;             // [rows, groups]
  ConstMatrixView zeros;              // the same shape; empty when symmetric
  absl::Span<const int32_t> columns;  // [B], host memory: where each stood, which says its group
  int64_t in_features = 0;            // cols
  uint8_t* codes = nullptr;           // [rows, B], host memory, in_features apart from row to row
  MatrixView error;                   // [rows, B], written
};

// B columns of a weight [rows, cols] on a grid, under refinement; see Device::RefineBlock. H is the
// damped second moment of the inputs; W the weights as they were, Q their values on the grid.
struct RefinementBlock {
  ConstMatrixView residual;  // [rows, B]: these columns of (W - Q) H
  ConstMatrixView h;         // [B, B]: these rows and columns of H
  GridSpec grid;             // its group size divides B
  bool refit_scales = true;  // false where a group reaches beyond the block
  MatrixView scales;         // [rows, B / group size]
  ConstMatrixView zeros;     // the same shape; empty when symmetric
  uint8_t* codes = nullptr;  // host memory, code_stride apart from row to row
  int64_t code_stride = 0;
  MatrixView change;  // [rows, B], written: Q after minus Q before
};

class Device {
 public:
  virtual ~Device() = default;

  // "cpu", "reference", "cuda:0".
  virtual absl::string_view name() const = 0;
  // For people: instruction set, threads, memory.
  virtual std::string Description() const = 0;
  // Devices whose results are bit-equal share a class; it enters the cache keys.
  virtual std::string NumericsClass() const = 0;
  virtual bool Supports(ComputeType type) const = 0;
  // For loops over host memory between operations; not while one is under way.
  virtual ThreadPool& host_threads() = 0;

  // --- memory ---
  virtual absl::StatusOr<std::unique_ptr<DeviceMatrix>> NewMatrix(int64_t rows, int64_t cols) = 0;
  virtual absl::Status Upload(ConstMatrixView host, MatrixView device) = 0;
  virtual absl::Status Download(ConstMatrixView device, MatrixView host) = 0;
  virtual absl::Status FillZero(MatrixView m) = 0;
  // Both in device memory, not overlapping.
  virtual absl::Status Copy(ConstMatrixView from, MatrixView to) = 0;
  // to[:, j] = from[:, columns[j]]; columns [to.cols] in host memory.
  virtual absl::Status GatherColumns(ConstMatrixView from, absl::Span<const int32_t> columns,
                                     MatrixView to) = 0;

  // --- products ---
  // `weight` [out_features, in_features] in HOST memory.
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareWeight(ConstMatrixView weight,
                                                                        ComputeType type) = 0;
  // The weight b^T, from b [in_features, out_features] in device memory.
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareTransposed(ConstMatrixView b,
                                                                            ComputeType type) = 0;
  // y [T, out] = x [T, in] weight^T + bias. Here and in the products below, y must not overlap x.
  virtual absl::Status Linear(ConstMatrixView x, BiasedWeight weight, MatrixView y) = 0;
  // The same of an input that is prepared, for the weight's type, once for several products.
  virtual absl::Status Linear(const PreparedInput& x, BiasedWeight weight, MatrixView y) = 0;
  // Columns without a value yet are zero; a product may skip those before the first that has one.
  virtual absl::StatusOr<std::unique_ptr<PreparedInput>> NewInput(int64_t rows, int64_t features,
                                                                  ComputeType type) = 0;
  // Columns [first, first + values.cols) become `values`.
  virtual absl::Status SetColumns(ConstMatrixView values, int64_t first, PreparedInput& input) = 0;
  // y += x weight^T + bias.
  virtual absl::Status AddLinear(ConstMatrixView x, BiasedWeight weight, MatrixView y) = 0;
  // y -= x weight^T.
  virtual absl::Status SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                                      MatrixView y) = 0;
  virtual absl::Status SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                      MatrixView y) = 0;
  // y = silu(g) * u, with g and u what Linear gives for `gate` and `up`.
  virtual absl::Status GatedLinear(ConstMatrixView x, BiasedWeight gate, BiasedWeight up,
                                   MatrixView y) = 0;
  // c [M, N] -= a [M, K] b [K, N], in F32.
  virtual absl::Status SubtractProduct(ConstMatrixView a, ConstMatrixView b, MatrixView c) = 0;
  // gram [K, K] += x^T x for x [T, K]; only the lower triangle (column <= row) is kept up to date.
  // BF16 rounds x first; sums in F32 over fixed blocks of tokens.
  virtual absl::Status AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) = 0;

  // --- decoder pieces; in place where out == in ---
  // out = x / rms(x) * weight; weight [cols] in device memory (offset already added).
  virtual absl::Status RmsNorm(ConstMatrixView x, const float* weight, float epsilon,
                               MatrixView out) = 0;
  // x [T, heads * head_dim]; positions [T] in host memory.
  virtual absl::Status Rope(MatrixView x, int head_dim, absl::Span<const int32_t> positions,
                            const RopeTable& table) = 0;
  // out [T, heads * head_dim]; q likewise; k, v [T, kv_heads * head_dim]. Rows outside every
  // segment are left alone.
  virtual absl::Status Attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
                                 absl::Span<const Segment> segments, const AttentionShape& shape,
                                 MatrixView out) = 0;
  // y += x.
  virtual absl::Status Add(ConstMatrixView x, MatrixView y) = 0;
  // out = a - b; out may be one of them.
  virtual absl::Status Subtract(ConstMatrixView a, ConstMatrixView b, MatrixView out) = 0;

  // --- what the evaluation reads from logits [T, vocabulary] ---
  // Each row becomes log-softmax of itself.
  virtual absl::Status LogSoftmax(MatrixView logits) = 0;
  // kl[r] = sum_v exp(p) (p - q) for log-probabilities p (source) and q (candidate); sums in F64.
  virtual absl::Status KlDivergence(ConstMatrixView source, ConstMatrixView candidate,
                                    absl::Span<double> kl) = 0;
  // out[r] = cosine of x[r] and y[r], sums in F64; 0 when either is zero.
  virtual absl::Status RowCosine(ConstMatrixView x, ConstMatrixView y, absl::Span<double> out) = 0;

  // --- quantization ---
  // Fits scales [rows, groups] (and, when not symmetric, integer-valued zeros of the same shape) of
  // `weight` [rows, cols]. With search, the squared error weighted by `column_weight` [cols]
  // (device memory, or null for ones) is minimised over shrink factors and, for symmetric grids
  // below 8 bits, both signs of the scale (a negative one mirrors the lopsided grid). Magnitudes
  // are snapped to 8 significant bits within [2^-14, 65504] before they are compared or returned,
  // so that F16, BF16 and F32 hold them exactly; an all-zero group gets 2^-14.
  virtual absl::Status FitGrid(ConstMatrixView weight, const GridSpec& grid,
                               const float* column_weight, MatrixView scales, MatrixView zeros) = 0;
  // codes [rows, cols] (host memory) = nearest code, ties to even.
  virtual absl::Status RoundToGrid(ConstMatrixView weight, const GridSpec& grid,
                                   ConstMatrixView scales, ConstMatrixView zeros,
                                   uint8_t* codes) = 0;
  // weight [rows, cols] = scale * (code - zero).
  virtual absl::Status Dequantize(const uint8_t* codes, const GridSpec& grid,
                                  ConstMatrixView scales, ConstMatrixView zeros,
                                  MatrixView weight) = 0;

  // --- second-order information ---
  // In place: h [n, n] (lower triangle of a symmetric positive definite matrix) becomes U, upper
  // triangular with h^-1 = U^T U, the strict lower triangle zero. FAILED_PRECONDITION when h is not
  // positive definite or the factor is not finite; h is then garbage.
  virtual absl::Status InverseCholesky(MatrixView h) = 0;
  // GPTQ inside one block of columns, all rows at once (methods 3.1): for j = 0..B-1, code and
  // value q of column j; error[r, j] = (w[r, j] - q) / u[j, j]; w[r, j+1..] -= error[r, j] u[j,
  // j+1..]. loss[r] (host memory) = the row's squared errors. The columns behind the block are the
  // caller's to update.
  virtual absl::Status GptqBlock(const GptqColumns& block, absl::Span<double> loss) = 0;
  // One sweep of coordinate descent on (W - Q) H (W - Q)^T over a block of columns, each row by
  // itself: group after group, first the scale that fits best to the group's codes (snapped, kept
  // where it helps), then code after code the one that fits best while all else stays. Writes
  // scales, codes and change; gain[r] (host memory) is how much the row's error fell, never less
  // than zero but for rounding. The residuals of the other columns are the caller's to update.
  virtual absl::Status RefineBlock(const RefinementBlock& block, absl::Span<double> gain) = 0;
};

struct DeviceOptions {
  std::string device = "auto";  // auto | cpu | reference | cuda:N
  int num_threads = 0;          // 0: all cores this process may use
};

// INVALID_ARGUMENT for an unknown name, UNIMPLEMENTED for a device this build has not.
absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const DeviceOptions& options);

}  // namespace lwq
