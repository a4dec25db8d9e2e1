#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/host_batch.h"
#include "worker/engine/device/reference/activate.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/tensor/fp8.h"

namespace lwq {
namespace {

// Rows that a segment's tokens see before it: its ancestors', the eldest first.
std::vector<int64_t> AncestorRows(absl::Span<const Segment> segments, int index) {
  std::vector<int> chain;
  for (int s = segments[index].parent; s >= 0; s = segments[s].parent) chain.push_back(s);
  std::reverse(chain.begin(), chain.end());
  std::vector<int64_t> rows;
  for (int s : chain) {
    for (int64_t i = 0; i < segments[s].size; ++i) rows.push_back(segments[s].begin + i);
  }
  return rows;
}

double Score(const float* q, const float* k, const AttentionShape& shape) {
  double dot = 0;
  for (int d = 0; d < shape.head_dim; ++d) dot += double{q[d]} * k[d];
  dot *= shape.scale;
  if (shape.logit_softcap > 0) {
    dot = shape.logit_softcap * std::tanh(dot / shape.logit_softcap);
  }
  return dot;
}

// One token and head: softmax over `rows`, the last of which is the token's own.
void AttendOne(const float* q, ConstMatrixView k, ConstMatrixView v, absl::Span<const int64_t> rows,
               const AttentionShape& shape, int head, float* out) {
  const int64_t q_at = int64_t{head} * shape.head_dim;
  const int64_t k_at = int64_t{head / (shape.num_heads / shape.num_kv_heads)} * shape.head_dim;
  std::vector<double> score(rows.size());
  for (size_t j = 0; j < rows.size(); ++j) {
    score[j] = Score(q + q_at, k.Row(rows[j]) + k_at, shape);
  }
  const double top = *std::max_element(score.begin(), score.end());
  double total = 0;
  for (double& s : score) total += (s = std::exp(s - top));
  std::vector<double> sum(shape.head_dim, 0.0);
  for (size_t j = 0; j < rows.size(); ++j) {
    for (int d = 0; d < shape.head_dim; ++d) sum[d] += score[j] * v.Row(rows[j])[k_at + d];
  }
  for (int d = 0; d < shape.head_dim; ++d) out[q_at + d] = static_cast<float>(sum[d] / total);
}

}  // namespace

absl::Status ReferenceDevice::RmsNorm(DeviceView<const float> x, DeviceSpan<const float> weight,
                                      float epsilon, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("norm's output", out, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("norm's weight", weight.size, x.cols));
  const float* gains = space_.Host(weight.data);
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += double{Row(x, r)[c]} * Row(x, r)[c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
    for (int64_t c = 0; c < x.cols; ++c) {
      Row(out, r)[c] = static_cast<float>(Row(x, r)[c] * scale * gains[c]);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DeviceBatch>> ReferenceDevice::NewBatch(
    absl::Span<const Segment> segments, absl::Span<const int32_t> positions) {
  return HostBatch::Create(segments, positions);
}

absl::StatusOr<std::unique_ptr<RopeTable>> ReferenceDevice::NewRopeTable(
    const RopeSettings& settings, int64_t num_positions) {
  LWQ_RETURN_IF_ERROR(CheckRopeSettings(settings, num_positions));
  auto table = std::make_unique<HostRopeTable<double>>(settings, num_positions);
  for (int64_t p = 0; p < num_positions; ++p) {
    for (int64_t i = 0; i < table->half(); ++i) {
      // The angle is an F32 product by definition: that is what models were trained with.
      const double angle = static_cast<float>(p) * settings.inverse_frequency[i];
      table->cosine(p)[i] = std::cos(angle) * settings.attention_factor;
      table->sine(p)[i] = std::sin(angle) * settings.attention_factor;
    }
  }
  return table;
}

absl::Status ReferenceDevice::Rope(const DeviceBatch& batch, const RopeTable& table,
                                   DeviceView<float> x) {
  LWQ_ASSIGN_OR_RETURN(const HostBatch* own, HostBatch::Of(batch));
  LWQ_ASSIGN_OR_RETURN(const auto* rotations, HostRopeTable<double>::Of(table));
  LWQ_RETURN_IF_ERROR(CheckRope(batch, own->last_position(), table, x));
  const int64_t half = rotations->half();
  for (int64_t r = 0; r < x.rows; ++r) {
    const double* cosine = rotations->cosine(own->positions()[r]);
    const double* sine = rotations->sine(own->positions()[r]);
    for (int64_t i = 0; i < half; ++i) {
      for (int64_t at = 0; at < x.cols; at += table.head_dim()) {
        float* pair = Row(x, r) + at + i;
        const double a = pair[0], b = pair[half];
        pair[0] = static_cast<float>(a * cosine[i] - b * sine[i]);
        pair[half] = static_cast<float>(b * cosine[i] + a * sine[i]);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Attention(DeviceView<const float> q, DeviceView<const float> k,
                                        DeviceView<const float> v, const DeviceBatch& batch,
                                        const AttentionShape& shape, DeviceView<float> out) {
  LWQ_ASSIGN_OR_RETURN(const HostBatch* own, HostBatch::Of(batch));
  LWQ_RETURN_IF_ERROR(CheckAttention(q, k, v, batch, shape, out));
  const std::vector<Segment>& segments = own->segments();
  const int64_t first_row = own->rows() - q.rows;
  LWQ_ASSIGN_OR_RETURN(const std::vector<int> queried, own->SegmentsInLast(q.rows));
  for (const int s : queried) {
    const Segment& segment = segments[static_cast<size_t>(s)];
    std::vector<int64_t> rows = AncestorRows(segments, s);
    for (int64_t i = 0; i < segment.size; ++i) {
      rows.push_back(segment.begin + i);
      absl::Span<const int64_t> seen = rows;
      const size_t window = static_cast<size_t>(shape.sliding_window);
      if (window > 0 && seen.size() > window) seen.remove_prefix(seen.size() - window);
      for (int head = 0; head < shape.num_heads; ++head) {
        AttendOne(Row(q, rows.back() - first_row), space_.Host(k), space_.Host(v), seen, shape,
                  head, Row(out, rows.back() - first_row));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Gate(DeviceView<const float> gate, DeviceView<const float> up,
                                   Activation activation, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckGate(gate, up, out));
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = 0; c < out.cols; ++c) {
      Row(out, r)[c] = static_cast<float>(Activate(activation, Row(gate, r)[c]) * Row(up, r)[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::SoftCap(float cap, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckSoftCap(cap));
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      Row(x, r)[c] = static_cast<float>(cap * std::tanh(double{Row(x, r)[c]} / cap));
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RoundRows(ActivationRule rule, DeviceView<float> x) {
  if (rule == ActivationRule::kNone) return absl::OkStatus();
  const bool integers = rule == ActivationRule::kInt8PerToken;
  for (int64_t r = 0; r < x.rows; ++r) {
    float* row = Row(x, r);
    float largest = 0;
    for (int64_t c = 0; c < x.cols; ++c) largest = std::max(largest, std::abs(row[c]));
    const float scale = largest / (integers ? kInt8Range : kE4M3Largest);
    if (scale == 0) continue;
    for (int64_t c = 0; c < x.cols; ++c) {
      const float quotient = row[c] / scale;
      const float rounded =
          integers ? std::nearbyint(std::clamp(quotient, -128.0f, 127.0f)) : RoundToE4M3(quotient);
      row[c] = rounded * scale;
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Add(DeviceView<const float> x, DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckShape("summand", x, y.rows, y.cols));
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < y.cols; ++c) Row(y, r)[c] += Row(x, r)[c];
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Subtract(DeviceView<const float> a, DeviceView<const float> b,
                                       DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("minuend", a, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(CheckShape("subtrahend", b, out.rows, out.cols));
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = 0; c < out.cols; ++c) Row(out, r)[c] = Row(a, r)[c] - Row(b, r)[c];
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::LogSoftmax(DeviceView<float> logits) {
  for (int64_t r = 0; r < logits.rows; ++r) {
    float* row = Row(logits, r);
    const double top = *std::max_element(row, row + logits.cols);
    double total = 0;
    for (int64_t c = 0; c < logits.cols; ++c) total += std::exp(row[c] - top);
    const double log_total = top + std::log(total);
    for (int64_t c = 0; c < logits.cols; ++c) row[c] = static_cast<float>(row[c] - log_total);
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::KlDivergence(DeviceView<const float> source,
                                           DeviceView<const float> candidate,
                                           DeviceSpan<double> kl) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' divergences", kl.size, source.rows));
  double* sums = space_.Host(kl.data);
  for (int64_t r = 0; r < source.rows; ++r) {
    sums[r] = 0;
    for (int64_t c = 0; c < source.cols; ++c) {
      const double p = Row(source, r)[c];
      if (p > -INFINITY) sums[r] += std::exp(p) * (p - Row(candidate, r)[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::SumLogits(DeviceView<const float> logits, int64_t first_token,
                                        const LogitSums& sums) {
  LWQ_RETURN_IF_ERROR(CheckSums(logits, sums));
  float* top = space_.Host(sums.top.data);
  int32_t* best = space_.Host(sums.best.data);
  double* total = space_.Host(sums.total.data);
  for (int64_t r = 0; r < logits.rows && logits.cols > 0; ++r) {
    const float* row = Row(logits, r);
    const float* largest = std::max_element(row, row + logits.cols);
    if (first_token == 0) total[r] = 0;
    if (first_token == 0 || *largest > top[r]) {
      if (first_token > 0) total[r] *= std::exp(double{top[r]} - *largest);
      top[r] = *largest;
      best[r] = static_cast<int32_t>(first_token + (largest - row));
    }
    for (int64_t c = 0; c < logits.cols; ++c) total[r] += std::exp(double{row[c]} - top[r]);
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::SumLogitGaps(DeviceView<const float> source,
                                           DeviceSpan<const float> source_top,
                                           DeviceView<const float> candidate, int64_t first_token,
                                           const LogitGaps& gaps) {
  LWQ_RETURN_IF_ERROR(CheckGaps(source, source_top, candidate, gaps));
  const float* top_now = space_.Host(source_top.data);
  float* top = space_.Host(gaps.top.data);
  double* total = space_.Host(gaps.total.data);
  for (int64_t r = 0; r < source.rows; ++r) {
    total[r] = first_token == 0 ? 0 : total[r] * std::exp(double{top[r]} - top_now[r]);
    top[r] = top_now[r];
    for (int64_t c = 0; c < source.cols; ++c) {
      const double p = Row(source, r)[c];
      total[r] += std::exp(p - top[r]) * (p - Row(candidate, r)[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Pick(DeviceView<const float> m, DeviceSpan<const int32_t> rows,
                                   DeviceSpan<const int32_t> columns, DeviceSpan<float> out) {
  LWQ_RETURN_IF_ERROR(CheckLength("places' columns", columns.size, rows.size));
  LWQ_RETURN_IF_ERROR(CheckLength("picked elements", out.size, rows.size));
  const size_t count = static_cast<size_t>(rows.size);
  const absl::Span<const int32_t> r(space_.Host(rows.data), count);
  const absl::Span<const int32_t> c(space_.Host(columns.data), count);
  LWQ_RETURN_IF_ERROR(CheckPlaces(r, c, m.rows, m.cols));
  for (size_t i = 0; i < count; ++i) space_.Host(out.data)[i] = Row(m, r[i])[c[i]];
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RowCosine(DeviceView<const float> x, DeviceView<const float> y,
                                        DeviceSpan<double> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("second operand", y, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' cosines", out.size, x.rows));
  double* cosines = space_.Host(out.data);
  for (int64_t r = 0; r < x.rows; ++r) {
    double xy = 0, xx = 0, yy = 0;
    for (int64_t c = 0; c < x.cols; ++c) {
      const double a = Row(x, r)[c], b = Row(y, r)[c];
      xy += a * b, xx += a * a, yy += b * b;
    }
    cosines[r] = xx > 0 && yy > 0 ? xy / (std::sqrt(xx) * std::sqrt(yy)) : 0;
  }
  return absl::OkStatus();
}

}  // namespace lwq
