// What the engine asks of a compute device, and nothing else: some fifty coarse operations on
// matrices in the device's memory. `reference` (scalar, double; the judge of all others), `cpu`
// and `cuda` implement it.
//
// Memory: every view and span passed to an operation points into memory that the same device made
// (NewBuffer); the types of device_memory.h keep it apart from the host's. Host data crosses only
// by Upload and Download. Shapes are checked by the caller except where an error is documented;
// sizes are in elements.
// Order: operations take effect in the order of the calls, but may still be under way when a call
// returns. Download and Synchronize wait for all before them. What goes wrong may be reported by
// the operation itself or by a later one, at the latest by the next Download or Synchronize; host
// memory that was passed may be reused as soon as the call returns. So nothing between two
// downloads costs a round trip to the device, and a caller reads back once per linear, not per
// operation.
// Results are bit-identical for any number of threads. Thread-safety: one caller at a time.
// Errors: INVALID_ARGUMENT for shapes that do not fit, RESOURCE_EXHAUSTED for memory, INTERNAL for
// a fault of the library below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "worker/engine/device/device_memory.h"
#include "worker/engine/tensor/activation_rule.h"
#include "worker/engine/tensor/block_layout.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

class ThreadPool;

// What the inputs of matrix products are rounded to. Sums are always F32 or wider.
enum class ComputeType { kF32, kBF16 };
absl::string_view NameOf(ComputeType type);

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

// A prepared weight and what is added to its product: bias [out_features], or empty.
struct BiasedWeight {
  BiasedWeight(const PreparedWeight& w, DeviceSpan<const float> b = {})  // NOLINT: few have a bias
      : weight(&w), bias(b) {}
  const PreparedWeight* weight;
  DeviceSpan<const float> bias;
};

// What a gated MLP does to its gates: g / (1 + exp(-g)); or GELU by its approximation with a tanh,
// g / (1 + exp(-2 u)) with u = sqrt(2 / pi) (g + 0.044715 g^3).
enum class Activation { kSilu, kGeluTanh };

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

// Where the rows of a packed run of sequences stand, as the device's operations read it: made once
// and used by every layer. Immutable.
class DeviceBatch {
 public:
  virtual ~DeviceBatch() = default;
  virtual int64_t rows() const = 0;
};

// Rotary embedding in the half-split form of Hugging Face: of a head's first `rotated` values, (i,
// i + rotated / 2) are pairs; what comes after them is left alone.
struct RopeSettings {
  absl::Span<const float> inverse_frequency;  // [rotated / 2], host memory
  float attention_factor = 1;                 // multiplies cosine and sine
  int head_dim = 0;                           // 0: all of a head is rotated
};

// The rotations of all positions below num_positions. Immutable.
class RopeTable {
 public:
  virtual ~RopeTable() = default;
  virtual int head_dim() const = 0;
  virtual int64_t num_positions() const = 0;
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
  DeviceView<float> w;        // [rows, B]: as updated so far; their values on the grid afterwards
  DeviceView<const float> u;  // [B, B]: these rows and columns of U
  GridSpec grid;
  DeviceView<const float> scales;     // [rows, groups]
  DeviceView<const float> zeros;      // the same shape; empty when symmetric
  DeviceSpan<const int32_t> columns;  // [B]: where each stood, which says its group
  int64_t in_features = 0;            // cols
  DeviceView<uint8_t> codes;          // [rows, B], written
  DeviceView<float> error;            // [rows, B], written
  DeviceSpan<double> loss;            // [rows], added to
};

// B columns of a weight [rows, cols] on a grid, under refinement; see Device::RefineBlock. H is the
// damped second moment of the inputs; W the weights as they were, Q their values on the grid.
struct RefinementBlock {
  DeviceView<const float> residual;  // [rows, B]: these columns of (W - Q) H
  DeviceView<const float> h;         // [B, B]: these rows and columns of H
  GridSpec grid;                     // its group size divides B
  bool refit_scales = true;          // false where a group reaches beyond the block
  DeviceView<float> scales;          // [rows, B / group size]
  DeviceView<const float> zeros;     // the same shape; empty when symmetric
  DeviceView<uint8_t> codes;         // [rows, B]
  DeviceView<float> change;          // [rows, B], written: Q after minus Q before
  DeviceSpan<double> gain;           // [rows], added to
};

// What of each row of logits [T, vocabulary] is kept while they are met a part of the vocabulary at
// a time; all [T].
struct LogitSums {
  DeviceSpan<float> top;     // the largest so far
  DeviceSpan<int32_t> best;  // the first token that has it
  DeviceSpan<double> total;  // sum of exp(logit - top)
};
// The same of the logits of two models; with the LogitSums of both it gives the KL divergence.
struct LogitGaps {
  DeviceSpan<float> top;     // the source's largest so far
  DeviceSpan<double> total;  // sum of exp(source - top) (source - candidate)
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
  // What buffers may take at most in a memory of the device's own, in bytes; 0: it has none.
  virtual int64_t memory_limit_bytes() const { return 0; }
  // Whether a fault makes every later operation fail, so that the process has to end. Waits for what
  // is under way; for after an error.
  virtual bool Lost() { return false; }

  // --- memory ---
  // [rows, cols] of T, not initialised. INVALID_ARGUMENT for sizes below 0 or past 2^40 elements.
  template <typename T>
  absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> NewBuffer(int64_t rows, int64_t cols) {
    LWQ_ASSIGN_OR_RETURN(auto memory, Allocate(rows, cols, sizeof(T)));
    return std::make_unique<DeviceBuffer<T>>(std::move(memory), rows, cols);
  }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> NewMatrix(int64_t rows, int64_t cols) {
    return NewBuffer<float>(rows, cols);
  }
  // INVALID_ARGUMENT where the two sides differ in shape.
  template <typename T>
  absl::Status Upload(std::type_identity_t<HostView<const T>> host, DeviceView<T> device) {
    LWQ_RETURN_IF_ERROR(CheckSameShape("upload", host, device));
    return UploadBytes(Bytes<T>(host), Bytes<T>(device));
  }
  template <typename T>
  absl::Status Download(std::type_identity_t<DeviceView<const T>> device, HostView<T> host) {
    LWQ_RETURN_IF_ERROR(CheckSameShape("download", device, host));
    return DownloadBytes(Bytes<T>(device), Bytes<T>(host));
  }
  template <typename T>
  absl::Status Upload(std::type_identity_t<absl::Span<const T>> host, DeviceSpan<T> device) {
    return Upload<T>({host.data(), 1, static_cast<int64_t>(host.size()), 0}, AsRow(device));
  }
  template <typename T>
  absl::Status Download(std::type_identity_t<DeviceSpan<const T>> device, absl::Span<T> host) {
    return Download<T>(AsRow(device), {host.data(), 1, static_cast<int64_t>(host.size()), 0});
  }
  // Both in device memory, not overlapping.
  template <typename T>
  absl::Status Copy(std::type_identity_t<DeviceView<const T>> from, DeviceView<T> to) {
    LWQ_RETURN_IF_ERROR(CheckSameShape("copy", from, to));
    return CopyBytes(Bytes<T>(from), Bytes<T>(to));
  }
  template <typename T>
  absl::Status FillZero(DeviceView<T> m) {
    return ZeroBytes(Bytes<T>(m));
  }
  template <typename T>
  absl::Status FillZero(DeviceSpan<T> s) {
    return FillZero(AsRow(s));
  }
  // Gives back what is kept between operations to be faster, where there is such.
  virtual void ReleaseScratch() {}
  // Waits for all that was asked for and reports the first failure that was not reported yet.
  virtual absl::Status Synchronize() = 0;
  // to = from, in F32.
  virtual absl::Status Widen(DeviceView<const BF16> from, DeviceView<float> to) = 0;
  virtual absl::Status Widen(DeviceView<const F16> from, DeviceView<float> to) = 0;
  // to[:, j] = from[:, columns[j]]; columns [to.cols] must lie in [0, from.cols).
  virtual absl::Status GatherColumns(DeviceView<const float> from,
                                     DeviceSpan<const int32_t> columns, DeviceView<float> to) = 0;
  virtual absl::Status GatherColumns(DeviceView<const uint8_t> from,
                                     DeviceSpan<const int32_t> columns, DeviceView<uint8_t> to) = 0;
  // INVALID_ARGUMENT "NON_FINITE_WEIGHTS" when a NaN or infinity is in x, naming its place; `what`
  // says whose it is.
  virtual absl::Status CheckFinite(absl::string_view what, DeviceView<const float> x) = 0;

  // --- products ---
  // `weight` [out_features, in_features], not needed afterwards.
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareWeight(
      DeviceView<const float> weight, ComputeType type) = 0;
  // The weight b^T, from b [in_features, out_features].
  virtual absl::StatusOr<std::unique_ptr<PreparedWeight>> PrepareTransposed(
      DeviceView<const float> b, ComputeType type) = 0;
  // y [T, out] = x [T, in] weight^T + bias. Here and in the products below, y must not overlap x.
  virtual absl::Status Linear(DeviceView<const float> x, BiasedWeight weight,
                              DeviceView<float> y) = 0;
  // The same of an input that is prepared, for the weight's type, once for several products.
  virtual absl::Status Linear(const PreparedInput& x, BiasedWeight weight, DeviceView<float> y) = 0;
  // Columns without a value yet are zero; a product may skip those before the first that has one.
  virtual absl::StatusOr<std::unique_ptr<PreparedInput>> NewInput(int64_t rows, int64_t features,
                                                                  ComputeType type) = 0;
  // Columns [first, first + values.cols) become `values`.
  virtual absl::Status SetColumns(DeviceView<const float> values, int64_t first,
                                  PreparedInput& input) = 0;
  // y += x weight^T + bias.
  virtual absl::Status AddLinear(DeviceView<const float> x, BiasedWeight weight,
                                 DeviceView<float> y) = 0;
  // y -= x weight^T.
  virtual absl::Status SubtractLinear(DeviceView<const float> x, const PreparedWeight& weight,
                                      DeviceView<float> y) = 0;
  virtual absl::Status SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                      DeviceView<float> y) = 0;
  // y = activation(g) * u, with g and u what Linear gives for `gate` and `up`.
  virtual absl::Status GatedLinear(DeviceView<const float> x, BiasedWeight gate, BiasedWeight up,
                                   Activation activation, DeviceView<float> y) = 0;
  // c [M, N] -= a [M, K] b [K, N], in F32.
  virtual absl::Status SubtractProduct(DeviceView<const float> a, DeviceView<const float> b,
                                       DeviceView<float> c) = 0;
  // gram [K, K] += x^T x for x [T, K]; only the lower triangle (column <= row) is kept up to date.
  // BF16 rounds x first; sums in F32 over fixed blocks of tokens.
  virtual absl::Status AccumulateGram(DeviceView<const float> x, ComputeType type,
                                      DeviceView<float> gram) = 0;

  // --- decoder pieces; in place where out == in ---
  // out = x / rms(x) * weight; weight [cols] (offset already added).
  virtual absl::Status RmsNorm(DeviceView<const float> x, DeviceSpan<const float> weight,
                               float epsilon, DeviceView<float> out) = 0;
  // Rows are positions.size() tokens, of which `segments` cover some or all.
  virtual absl::StatusOr<std::unique_ptr<DeviceBatch>> NewBatch(
      absl::Span<const Segment> segments, absl::Span<const int32_t> positions) = 0;
  virtual absl::StatusOr<std::unique_ptr<RopeTable>> NewRopeTable(const RopeSettings& settings,
                                                                  int64_t num_positions) = 0;
  // x [T, heads * head_dim]; the table must hold all positions of the batch.
  virtual absl::Status Rope(const DeviceBatch& batch, const RopeTable& table,
                            DeviceView<float> x) = 0;
  // out [T, heads * head_dim]; q likewise; k, v [T, kv_heads * head_dim]. Rows outside every
  // segment are left alone. q and out may be the last rows of the batch alone: the segments before
  // them are then only seen. No segment may lie on both sides.
  virtual absl::Status Attention(DeviceView<const float> q, DeviceView<const float> k,
                                 DeviceView<const float> v, const DeviceBatch& batch,
                                 const AttentionShape& shape, DeviceView<float> out) = 0;
  // out = activation(gate) * up; out may be one of them.
  virtual absl::Status Gate(DeviceView<const float> gate, DeviceView<const float> up,
                            Activation activation, DeviceView<float> out) = 0;
  // A mixture of experts, for devices that do them; others answer UNIMPLEMENTED. Of each row of logits [T, experts] the `chosen.cols` greatest, in falling
  // order, of equal ones the first: their numbers, and their shares of the softmax over all, which
  // with `normalized` are divided by their sum. chosen and share [T, at most experts].
  virtual absl::Status ChooseExperts(DeviceView<const float> logits, bool normalized,
                                     DeviceView<int32_t> chosen, DeviceView<float> share);
  // to[i] = from[rows[i]]; rows [to.rows] must lie in [0, from.rows).
  virtual absl::Status GatherRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                                  DeviceView<float> to);
  // to[rows[i]] += scale[i] * from[i]; rows and scale [from.rows], no row twice.
  virtual absl::Status ScatterAddRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                                      DeviceSpan<const float> scale, DeviceView<float> to);
  // x[r] = x[r] / (1 + exp(-gate[r])); gate [x.rows].
  virtual absl::Status SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x);
  // Each x becomes cap * tanh(x / cap); cap > 0.
  virtual absl::Status SoftCap(float cap, DeviceView<float> x) = 0;
  // Each row becomes what a linear of that rule multiplies in its place; a row of zeros stays.
  virtual absl::Status RoundRows(ActivationRule rule, DeviceView<float> x) = 0;
  // y += x.
  virtual absl::Status Add(DeviceView<const float> x, DeviceView<float> y) = 0;
  // out = a - b; out may be one of them.
  virtual absl::Status Subtract(DeviceView<const float> a, DeviceView<const float> b,
                                DeviceView<float> out) = 0;

  // --- what the evaluation reads from logits [T, vocabulary] ---
  // Each row becomes log-softmax of itself.
  virtual absl::Status LogSoftmax(DeviceView<float> logits) = 0;
  // kl[r] = sum_v exp(p) (p - q) for log-probabilities p (source) and q (candidate); sums in F64.
  virtual absl::Status KlDivergence(DeviceView<const float> source,
                                    DeviceView<const float> candidate, DeviceSpan<double> kl) = 0;
  // Takes in the logits [T, n] of tokens [first_token, first_token + n). Parts come in the order of
  // the tokens; the one that begins with token 0 starts the sums. Sums in F64.
  virtual absl::Status SumLogits(DeviceView<const float> logits, int64_t first_token,
                                 const LogitSums& sums) = 0;
  // The same; `source_top` has taken in this part already.
  virtual absl::Status SumLogitGaps(DeviceView<const float> source,
                                    DeviceSpan<const float> source_top,
                                    DeviceView<const float> candidate, int64_t first_token,
                                    const LogitGaps& gaps) = 0;
  // out[i] = m[rows[i], columns[i]]; INVALID_ARGUMENT for a place outside m.
  virtual absl::Status Pick(DeviceView<const float> m, DeviceSpan<const int32_t> rows,
                            DeviceSpan<const int32_t> columns, DeviceSpan<float> out) = 0;
  // out[r] = cosine of x[r] and y[r], sums in F64; 0 when either is zero.
  virtual absl::Status RowCosine(DeviceView<const float> x, DeviceView<const float> y,
                                 DeviceSpan<double> out) = 0;

  // --- quantization ---
  // Fits scales [rows, groups] (and, when not symmetric, integer-valued zeros of the same shape) of
  // `weight` [rows, cols]. With search, the squared error weighted by `column_weight` [cols]
  // (empty: ones) is minimised over shrink factors and, for symmetric grids below 8 bits, both
  // signs of the scale (a negative one mirrors the lopsided grid). Magnitudes are snapped to 8
  // significant bits within [2^-14, 65504] before they are compared or returned, so that F16, BF16
  // and F32 hold them exactly; an all-zero group gets 2^-14.
  virtual absl::Status FitGrid(DeviceView<const float> weight, const GridSpec& grid,
                               DeviceSpan<const float> column_weight, DeviceView<float> scales,
                               DeviceView<float> zeros) = 0;
  // codes [rows, cols] = nearest code, ties to even.
  virtual absl::Status RoundToGrid(DeviceView<const float> weight, const GridSpec& grid,
                                   DeviceView<const float> scales, DeviceView<const float> zeros,
                                   DeviceView<uint8_t> codes) = 0;
  // codes[r, j] = code j of row r of `packed`, a stream of codes of `bits` bits (1 to 8) as
  // tensor/pack_bits.h packs them: 4 * PackedWords(codes.cols, bits) bytes a row, at any alignment.
  virtual absl::Status UnpackCodes(DeviceView<const uint8_t> packed, int bits,
                                   DeviceView<uint8_t> codes) = 0;
  // weight [rows, cols] = scale * (code - zero).
  virtual absl::Status Dequantize(DeviceView<const uint8_t> codes, const GridSpec& grid,
                                  DeviceView<const float> scales, DeviceView<const float> zeros,
                                  DeviceView<float> weight) = 0;
  // weight [rows, cols] = the values of `blocks`, rows of cols / layout.block_size blocks each, at
  // any alignment. INVALID_ARGUMENT for blocks of more than kMaxBlockSize values.
  virtual absl::Status DequantizeBlocks(DeviceView<const uint8_t> blocks, const BlockLayout& layout,
                                        DeviceView<float> weight) = 0;
  // weight [rows, cols] = scales[r] times the E4M3 value of codes[r, k] (tensor/fp8.h); scales
  // [rows, 1].
  virtual absl::Status DequantizeE4M3(DeviceView<const uint8_t> codes,
                                      DeviceView<const float> scales, DeviceView<float> weight) = 0;
  // error[r] = sum of (weight - scale * (code - zero))^2 over row r, square[r] = sum of weight^2;
  // sums over groups in F64.
  virtual absl::Status GridError(DeviceView<const float> weight, DeviceView<const uint8_t> codes,
                                 const GridSpec& grid, DeviceView<const float> scales,
                                 DeviceView<const float> zeros, DeviceSpan<double> error,
                                 DeviceSpan<double> square) = 0;

  // --- second-order information ---
  // The lower triangle of a [n, n] (column <= row) times `factor`, and the upper one its mirror
  // image.
  virtual absl::Status ScaleAndMirror(float factor, DeviceView<float> a) = 0;
  // out[i, j] = a[order[i], order[j]] for j <= i, and 0 for j > i; a and out [n, n].
  virtual absl::Status PermuteLower(DeviceView<const float> a, DeviceSpan<const int32_t> order,
                                    DeviceView<float> out) = 0;
  // In place: h [n, n] (lower triangle of a symmetric positive definite matrix) becomes U, upper
  // triangular with h^-1 = U^T U, the strict lower triangle zero. FAILED_PRECONDITION, which is
  // always the operation's own answer, when h is not positive definite or the factor is not
  // finite; h is then garbage.
  virtual absl::Status InverseCholesky(DeviceView<float> h) = 0;
  // GPTQ inside one block of columns, all rows at once (methods 3.1): for j = 0..B-1, code and
  // value q of column j; error[r, j] = (w[r, j] - q) / u[j, j]; w[r, j+1..] -= error[r, j] u[j,
  // j+1..]. loss[r] grows by the row's squared errors. The columns behind the block are the
  // caller's to update.
  virtual absl::Status GptqBlock(const GptqColumns& block) = 0;
  // One sweep of coordinate descent on (W - Q) H (W - Q)^T over a block of columns, each row by
  // itself: group after group, first the scale that fits best to the group's codes (snapped, kept
  // where it helps), then code after code the one that fits best while all else stays. Writes
  // scales, codes and change; gain[r] grows by how much the row's error fell, never less than zero
  // but for rounding. The residuals of the other columns are the caller's to update.
  virtual absl::Status RefineBlock(const RefinementBlock& block) = 0;

 protected:
  // What Upload, Download, Copy and FillZero come down to: rows of bytes, strides in bytes. Both
  // sides have one shape.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                                 int64_t element_bytes) = 0;
  virtual absl::Status UploadBytes(HostView<const uint8_t> host, DeviceView<uint8_t> device) = 0;
  virtual absl::Status DownloadBytes(DeviceView<const uint8_t> device, HostView<uint8_t> host) = 0;
  virtual absl::Status CopyBytes(DeviceView<const uint8_t> from, DeviceView<uint8_t> to) = 0;
  virtual absl::Status ZeroBytes(DeviceView<uint8_t> m) = 0;

 private:
  template <typename T>
  static HostView<uint8_t> Bytes(HostView<T> v) {
    return {reinterpret_cast<uint8_t*>(v.data), v.rows, v.cols * kBytes<T>, v.stride * kBytes<T>};
  }
  template <typename T>
  static HostView<const uint8_t> Bytes(HostView<const T> v) {
    return {reinterpret_cast<const uint8_t*>(v.data), v.rows, v.cols * kBytes<T>,
            v.stride * kBytes<T>};
  }
  template <typename T>
  static DeviceView<uint8_t> Bytes(DeviceView<T> v) {
    return {DevicePtr<uint8_t>(reinterpret_cast<uint8_t*>(v.data.address())), v.rows,
            v.cols * kBytes<T>, v.stride * kBytes<T>};
  }
  template <typename T>
  static DeviceView<const uint8_t> Bytes(DeviceView<const T> v) {
    return {DevicePtr<const uint8_t>(reinterpret_cast<const uint8_t*>(v.data.address())), v.rows,
            v.cols * kBytes<T>, v.stride * kBytes<T>};
  }
  template <typename T>
  static DeviceView<T> AsRow(DeviceSpan<T> span) {
    return {span.data, 1, span.size, span.size};
  }
  template <typename From, typename To>
  static absl::Status CheckSameShape(absl::string_view what, const From& from, const To& to) {
    return SameShape(what, from.rows, from.cols, to.rows, to.cols);
  }
  static absl::Status SameShape(absl::string_view what, int64_t from_rows, int64_t from_cols,
                                int64_t to_rows, int64_t to_cols);
  template <typename T>
  static constexpr int64_t kBytes = sizeof(T);
};

struct DeviceOptions {
  std::string device = "auto";  // auto | cpu | reference | cuda:N
  int num_threads = 0;          // 0: all cores this process may use
};

// INVALID_ARGUMENT for an unknown name, UNIMPLEMENTED for a device this build has not.
absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const DeviceOptions& options);

}  // namespace lwq
