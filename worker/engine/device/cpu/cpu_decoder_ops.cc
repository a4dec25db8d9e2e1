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
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/device/cpu/transpose.h"
#include "worker/engine/device/host_batch.h"

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
      const int64_t row = own.begin + first - (k_.rows - q_.rows);
      block.query = q_.Row(row) + int64_t{head} * shape_.head_dim;
      block.out = out_.Row(row) + int64_t{head} * shape_.head_dim;
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

absl::Status CpuDevice::RmsNorm(DeviceView<const float> x, DeviceSpan<const float> weight,
                                float epsilon, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("norm's output", out, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("norm's weight", weight.size, x.cols));
  ForRows(pool_, x.rows, [&](int64_t r) {
    RmsNormRow(Row(x, r), Host(weight.data), epsilon, x.cols, Row(out, r));
  });
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DeviceBatch>> CpuDevice::NewBatch(
    absl::Span<const Segment> segments, absl::Span<const int32_t> positions) {
  return HostBatch::Create(segments, positions);
}

absl::StatusOr<std::unique_ptr<RopeTable>> CpuDevice::NewRopeTable(const RopeSettings& settings,
                                                                   int64_t num_positions) {
  LWQ_RETURN_IF_ERROR(CheckRopeSettings(settings, num_positions));
  auto table = std::make_unique<HostRopeTable<float>>(settings, num_positions);
  ForRows(pool_, num_positions, [&](int64_t p) {
    float* cosine = table->cosine(p);
    float* sine = table->sine(p);
    for (int64_t i = 0; i < table->half(); ++i) {
      const float angle =
          static_cast<float>(p) * settings.inverse_frequency[static_cast<size_t>(i)];
      cosine[i] = std::cos(angle) * settings.attention_factor;
      sine[i] = std::sin(angle) * settings.attention_factor;
    }
  });
  return table;
}

absl::Status CpuDevice::Rope(const DeviceBatch& batch, const RopeTable& table,
                             DeviceView<float> x) {
  LWQ_ASSIGN_OR_RETURN(const HostBatch* own, HostBatch::Of(batch));
  LWQ_ASSIGN_OR_RETURN(const auto* rotations, HostRopeTable<float>::Of(table));
  LWQ_RETURN_IF_ERROR(CheckRope(batch, own->last_position(), table, x));
  const int64_t half = rotations->half();
  ForRows(pool_, x.rows, [&](int64_t r) {
    const int32_t position = own->positions()[static_cast<size_t>(r)];
    for (int64_t at = 0; at < x.cols; at += table.head_dim()) {
      RotateHead(rotations->cosine(position), rotations->sine(position), half, Row(x, r) + at);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::Attention(DeviceView<const float> q, DeviceView<const float> k,
                                  DeviceView<const float> v, const DeviceBatch& batch,
                                  const AttentionShape& shape, DeviceView<float> out) {
  LWQ_ASSIGN_OR_RETURN(const HostBatch* own, HostBatch::Of(batch));
  LWQ_RETURN_IF_ERROR(CheckAttention(q, k, v, batch, shape, out));
  const SegmentHead work(Host(q), Host(k), Host(v), own->segments(), shape, Host(out));
  LWQ_ASSIGN_OR_RETURN(const std::vector<int> queried, own->SegmentsInLast(q.rows));
  return RunAll(pool_, static_cast<int64_t>(queried.size()) * shape.num_heads, [&](int64_t i) {
    return work.Run(queried[static_cast<size_t>(i / shape.num_heads)],
                    static_cast<int>(i % shape.num_heads));
  });
}

absl::Status CpuDevice::Gate(DeviceView<const float> gate, DeviceView<const float> up,
                             Activation activation, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckGate(gate, up, out));
  ForRows(pool_, out.rows,
          [&](int64_t r) { GateRow(activation, Row(gate, r), Row(up, r), out.cols, Row(out, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::SoftCap(float cap, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckSoftCap(cap));
  ForRows(pool_, x.rows, [&](int64_t r) { SoftCapRow(cap, x.cols, Row(x, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::RoundRows(ActivationRule rule, DeviceView<float> x) {
  if (rule == ActivationRule::kNone) return absl::OkStatus();
  ForRows(pool_, x.rows, [&](int64_t r) { RoundRow(rule, x.cols, Row(x, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::Add(DeviceView<const float> x, DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckShape("summand", x, y.rows, y.cols));
  ForRows(pool_, y.rows, [&](int64_t r) { AddRow(Row(x, r), y.cols, Row(y, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::Subtract(DeviceView<const float> a, DeviceView<const float> b,
                                 DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("minuend", a, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(CheckShape("subtrahend", b, out.rows, out.cols));
  ForRows(pool_, out.rows,
          [&](int64_t r) { SubtractRow(Row(a, r), Row(b, r), out.cols, Row(out, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::LogSoftmax(DeviceView<float> logits) {
  ForRows(pool_, logits.rows, [&](int64_t r) { LogSoftmaxRow(logits.cols, Row(logits, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::KlDivergence(DeviceView<const float> source,
                                     DeviceView<const float> candidate, DeviceSpan<double> kl) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' divergences", kl.size, source.rows));
  ForRows(pool_, source.rows, [&](int64_t r) {
    Host(kl.data)[r] = KlRow(Row(source, r), Row(candidate, r), source.cols);
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::SumLogits(DeviceView<const float> logits, int64_t first_token,
                                  const LogitSums& sums) {
  LWQ_RETURN_IF_ERROR(CheckSums(logits, sums));
  if (logits.cols == 0) return absl::OkStatus();
  float* top = Host(sums.top.data);
  int32_t* best = Host(sums.best.data);
  double* total = Host(sums.total.data);
  ForRows(pool_, logits.rows, [&](int64_t r) {
    const float* row = Row(logits, r);
    const float largest = MaxRow(row, logits.cols);
    if (first_token == 0) total[r] = 0;
    if (first_token == 0 || largest > top[r]) {
      if (first_token > 0) total[r] *= std::exp(double{top[r]} - largest);
      top[r] = largest;
      best[r] =
          static_cast<int32_t>(first_token + (std::find(row, row + logits.cols, largest) - row));
    }
    total[r] += ExpSumRow(row, top[r], logits.cols);
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::SumLogitGaps(DeviceView<const float> source,
                                     DeviceSpan<const float> source_top,
                                     DeviceView<const float> candidate, int64_t first_token,
                                     const LogitGaps& gaps) {
  LWQ_RETURN_IF_ERROR(CheckGaps(source, source_top, candidate, gaps));
  const float* top_now = Host(source_top.data);
  float* top = Host(gaps.top.data);
  double* total = Host(gaps.total.data);
  ForRows(pool_, source.rows, [&](int64_t r) {
    total[r] = first_token == 0 ? 0 : total[r] * std::exp(double{top[r]} - top_now[r]);
    top[r] = top_now[r];
    total[r] += GapSumRow(Row(source, r), Row(candidate, r), top[r], source.cols);
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::Pick(DeviceView<const float> m, DeviceSpan<const int32_t> rows,
                             DeviceSpan<const int32_t> columns, DeviceSpan<float> out) {
  LWQ_RETURN_IF_ERROR(CheckLength("places' columns", columns.size, rows.size));
  LWQ_RETURN_IF_ERROR(CheckLength("picked elements", out.size, rows.size));
  const absl::Span<const int32_t> r = Host(rows), c = Host(columns);
  LWQ_RETURN_IF_ERROR(CheckPlaces(r, c, m.rows, m.cols));
  for (size_t i = 0; i < r.size(); ++i) Host(out.data)[i] = Row(m, r[i])[c[i]];
  return absl::OkStatus();
}

absl::Status CpuDevice::RowCosine(DeviceView<const float> x, DeviceView<const float> y,
                                  DeviceSpan<double> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("second operand", y, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' cosines", out.size, x.rows));
  ForRows(pool_, x.rows,
          [&](int64_t r) { Host(out.data)[r] = CosineRow(Row(x, r), Row(y, r), x.cols); });
  return absl::OkStatus();
}

}  // namespace lwq
