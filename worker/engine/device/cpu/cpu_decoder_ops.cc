// The CPU device's decoder operations: shapes checked, work cut into rows and heads, each on one
// thread (cpu_kernels.h).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_kernels.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/cpu/transpose.h"

namespace lwq {
namespace {

constexpr int64_t kRowsAtOnce = 16;

template <typename Body>
void ForRows(ThreadPool& pool, int64_t rows, const Body& body) {
  pool.ParallelForBlocks(rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A segment's ancestors, the eldest first, and then itself.
std::vector<int> ChainOf(absl::Span<const Segment> segments, int segment) {
  std::vector<int> chain;
  for (int s = segment; s >= 0; s = segments[static_cast<size_t>(s)].parent) chain.push_back(s);
  std::reverse(chain.begin(), chain.end());
  return chain;
}

// Buffers of one thread, kept between calls.
class AttentionScratch {
 public:
  // Grows the buffers for `keys` padded keys and a padded head size; false when there is no memory.
  bool Reserve(int64_t head_dim, int64_t keys, int64_t value_stride) {
    return Grow(keys_, head_dim * keys) && Grow(values_, keys * value_stride) &&
           Grow(scores_, kAttentionRows * keys) && Grow(sums_, kAttentionRows * value_stride);
  }
  float* keys() { return keys_.data(); }
  float* values() { return values_.data(); }
  float* scores() { return scores_.data(); }
  float* sums() { return sums_.data(); }

 private:
  static bool Grow(Matrix& m, int64_t size) {
    if (m.size() < size) m = Matrix(1, size);
    return m.data() != nullptr;
  }
  Matrix keys_, values_, scores_, sums_;
};

// Attention of one head over one segment.
class SegmentHead {
 public:
  SegmentHead(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
              absl::Span<const Segment> segments, const AttentionShape& shape, MatrixView out)
      : q_(q), k_(k), v_(v), segments_(segments), shape_(shape), out_(out) {}

  absl::Status Run(int segment, int head) const {
    const Segment& own = segments_[static_cast<size_t>(segment)];
    if (own.size == 0) return absl::OkStatus();
    const std::vector<int> chain = ChainOf(segments_, segment);
    int64_t num_keys = 0;
    for (int s : chain) num_keys += segments_[static_cast<size_t>(s)].size;
    AttentionBlock block{};
    block.head_dim = shape_.head_dim;
    block.key_stride = RoundUp(num_keys, kAttentionPad);
    block.value_stride = RoundUp(shape_.head_dim, kAttentionPad);
    static thread_local AttentionScratch scratch;
    if (!scratch.Reserve(block.head_dim, block.key_stride, block.value_stride)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no memory for the attention over ", num_keys, " tokens"));
    }
    Gather(chain, head / (shape_.num_heads / shape_.num_kv_heads), block, scratch);
    block.keys = scratch.keys();
    block.values = scratch.values();
    block.scores = scratch.scores();
    block.sums = scratch.sums();
    block.window = shape_.sliding_window;
    block.scale = shape_.scale;
    block.softcap = shape_.logit_softcap;
    block.query_stride = q_.stride;
    block.out_stride = out_.stride;
    for (int64_t first = 0; first < own.size; first += kAttentionRows) {
      block.rows = std::min(kAttentionRows, own.size - first);
      block.first_seen = num_keys - own.size + first + 1;
      block.query = q_.Row(own.begin + first) + int64_t{head} * shape_.head_dim;
      block.out = out_.Row(own.begin + first) + int64_t{head} * shape_.head_dim;
      AttendBlock(block);
    }
    return absl::OkStatus();
  }

 private:
  // Copies the chain's keys (transposed) and values of one head, padded with zeros.
  void Gather(const std::vector<int>& chain, int kv_head, const AttentionBlock& block,
              AttentionScratch& scratch) const {
    const int64_t at = int64_t{kv_head} * shape_.head_dim;
    float* keys = scratch.keys();
    float* values = scratch.values();
    std::fill_n(values, block.key_stride * block.value_stride, 0.0f);
    int64_t n = 0;
    for (int s : chain) {
      const Segment& segment = segments_[static_cast<size_t>(s)];
      for (int64_t i = 0; i < segment.size; ++i) {
        std::copy_n(v_.Row(segment.begin + i) + at, shape_.head_dim,
                    values + (n + i) * block.value_stride);
      }
      Transpose(k_.Row(segment.begin) + at, k_.stride, segment.size, shape_.head_dim, keys + n,
                block.key_stride);
      n += segment.size;
    }
    for (int d = 0; d < shape_.head_dim; ++d) {
      std::fill(keys + d * block.key_stride + n, keys + (d + 1) * block.key_stride, 0.0f);
    }
  }

  const ConstMatrixView q_, k_, v_;
  const absl::Span<const Segment> segments_;
  const AttentionShape& shape_;
  const MatrixView out_;
};

}  // namespace

absl::Status CpuDevice::RmsNorm(ConstMatrixView x, const float* weight, float epsilon,
                                MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckShape("norm's output", out, x.rows, x.cols));
  ForRows(pool_, x.rows,
          [&](int64_t r) { RmsNormRow(x.Row(r), weight, epsilon, x.cols, out.Row(r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::Rope(MatrixView x, int head_dim, absl::Span<const int32_t> positions,
                             const RopeTable& table) {
  LWQ_RETURN_IF_ERROR(CheckRope(x, head_dim, positions, table));
  const size_t half = static_cast<size_t>(head_dim / 2);
  ForRows(pool_, x.rows, [&](int64_t r) {
    static thread_local std::vector<float> cosine, sine;
    cosine.resize(half);
    sine.resize(half);
    for (size_t i = 0; i < half; ++i) {
      const float angle =
          static_cast<float>(positions[static_cast<size_t>(r)]) * table.inverse_frequency[i];
      cosine[i] = std::cos(angle) * table.attention_factor;
      sine[i] = std::sin(angle) * table.attention_factor;
    }
    for (int64_t at = 0; at < x.cols; at += head_dim) {
      RotateHead(cosine.data(), sine.data(), head_dim / 2, x.Row(r) + at);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::Attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
                                  absl::Span<const Segment> segments, const AttentionShape& shape,
                                  MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckAttention(q, k, v, segments, shape, out));
  const SegmentHead work(q, k, v, segments, shape, out);
  return RunAll(pool_, static_cast<int64_t>(segments.size()) * shape.num_heads, [&](int64_t i) {
    return work.Run(static_cast<int>(i / shape.num_heads), static_cast<int>(i % shape.num_heads));
  });
}

absl::Status CpuDevice::Add(ConstMatrixView x, MatrixView y) {
  LWQ_RETURN_IF_ERROR(CheckShape("summand", x, y.rows, y.cols));
  ForRows(pool_, y.rows, [&](int64_t r) { AddRow(x.Row(r), y.cols, y.Row(r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::Subtract(ConstMatrixView a, ConstMatrixView b, MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckShape("minuend", a, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(CheckShape("subtrahend", b, out.rows, out.cols));
  ForRows(pool_, out.rows,
          [&](int64_t r) { SubtractRow(a.Row(r), b.Row(r), out.cols, out.Row(r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::LogSoftmax(MatrixView logits) {
  ForRows(pool_, logits.rows, [&](int64_t r) { LogSoftmaxRow(logits.cols, logits.Row(r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::KlDivergence(ConstMatrixView source, ConstMatrixView candidate,
                                     absl::Span<double> kl) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  if (static_cast<int64_t>(kl.size()) != source.rows) {
    return absl::InvalidArgumentError("one divergence a row is returned");
  }
  ForRows(pool_, source.rows, [&](int64_t r) {
    kl[static_cast<size_t>(r)] = KlRow(source.Row(r), candidate.Row(r), source.cols);
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::RowCosine(ConstMatrixView x, ConstMatrixView y, absl::Span<double> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("second operand", y, x.rows, x.cols));
  if (static_cast<int64_t>(out.size()) != x.rows) {
    return absl::InvalidArgumentError("one cosine a row is returned");
  }
  ForRows(pool_, x.rows,
          [&](int64_t r) { out[static_cast<size_t>(r)] = CosineRow(x.Row(r), y.Row(r), x.cols); });
  return absl::OkStatus();
}

}  // namespace lwq
