#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/reference/reference_device.h"

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
void AttendOne(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
               absl::Span<const int64_t> rows, const AttentionShape& shape, int head, float* out) {
  const int64_t q_at = int64_t{head} * shape.head_dim;
  const int64_t k_at = int64_t{head / (shape.num_heads / shape.num_kv_heads)} * shape.head_dim;
  std::vector<double> score(rows.size());
  for (size_t j = 0; j < rows.size(); ++j) {
    score[j] = Score(q.Row(rows.back()) + q_at, k.Row(rows[j]) + k_at, shape);
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

absl::Status ReferenceDevice::RmsNorm(ConstMatrixView x, const float* weight, float epsilon,
                                      MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckShape("norm's output", out, x.rows, x.cols));
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += double{x.Row(r)[c]} * x.Row(r)[c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
    for (int64_t c = 0; c < x.cols; ++c) {
      out.Row(r)[c] = static_cast<float>(x.Row(r)[c] * scale * weight[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Rope(MatrixView x, int head_dim, absl::Span<const int32_t> positions,
                                   const RopeTable& table) {
  LWQ_RETURN_IF_ERROR(CheckRope(x, head_dim, positions, table));
  const int half = head_dim / 2;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int i = 0; i < half; ++i) {
      // The angle is an F32 product by definition: that is what models were trained with.
      const double angle = static_cast<float>(positions[r]) * table.inverse_frequency[i];
      const double cosine = std::cos(angle) * table.attention_factor;
      const double sine = std::sin(angle) * table.attention_factor;
      for (int64_t head = 0; head < x.cols / head_dim; ++head) {
        float* pair = x.Row(r) + head * head_dim + i;
        const double a = pair[0], b = pair[half];
        pair[0] = static_cast<float>(a * cosine - b * sine);
        pair[half] = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
                                        absl::Span<const Segment> segments,
                                        const AttentionShape& shape, MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckAttention(q, k, v, segments, shape, out));
  for (size_t s = 0; s < segments.size(); ++s) {
    std::vector<int64_t> rows = AncestorRows(segments, static_cast<int>(s));
    for (int64_t i = 0; i < segments[s].size; ++i) {
      rows.push_back(segments[s].begin + i);
      absl::Span<const int64_t> seen = rows;
      const size_t window = static_cast<size_t>(shape.sliding_window);
      if (window > 0 && seen.size() > window) seen.remove_prefix(seen.size() - window);
      for (int head = 0; head < shape.num_heads; ++head) {
        AttendOne(q, k, v, seen, shape, head, out.Row(rows.back()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Add(ConstMatrixView x, MatrixView y) {
  LWQ_RETURN_IF_ERROR(CheckShape("summand", x, y.rows, y.cols));
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < y.cols; ++c) y.Row(r)[c] += x.Row(r)[c];
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Subtract(ConstMatrixView a, ConstMatrixView b, MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckShape("minuend", a, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(CheckShape("subtrahend", b, out.rows, out.cols));
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = 0; c < out.cols; ++c) out.Row(r)[c] = a.Row(r)[c] - b.Row(r)[c];
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::LogSoftmax(MatrixView logits) {
  for (int64_t r = 0; r < logits.rows; ++r) {
    float* row = logits.Row(r);
    const double top = *std::max_element(row, row + logits.cols);
    double total = 0;
    for (int64_t c = 0; c < logits.cols; ++c) total += std::exp(row[c] - top);
    const double log_total = top + std::log(total);
    for (int64_t c = 0; c < logits.cols; ++c) row[c] = static_cast<float>(row[c] - log_total);
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::KlDivergence(ConstMatrixView source, ConstMatrixView candidate,
                                           absl::Span<double> kl) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  if (static_cast<int64_t>(kl.size()) != source.rows) {
    return absl::InvalidArgumentError("one divergence a row is returned");
  }
  for (int64_t r = 0; r < source.rows; ++r) {
    kl[r] = 0;
    for (int64_t c = 0; c < source.cols; ++c) {
      const double p = source.Row(r)[c];
      if (p > -INFINITY) kl[r] += std::exp(p) * (p - candidate.Row(r)[c]);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RowCosine(ConstMatrixView x, ConstMatrixView y,
                                        absl::Span<double> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("second operand", y, x.rows, x.cols));
  if (static_cast<int64_t>(out.size()) != x.rows) {
    return absl::InvalidArgumentError("one cosine a row is returned");
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    double xy = 0, xx = 0, yy = 0;
    for (int64_t c = 0; c < x.cols; ++c) {
      const double a = x.Row(r)[c], b = y.Row(r)[c];
      xy += a * b, xx += a * a, yy += b * b;
    }
    out[r] = xx > 0 && yy > 0 ? xy / (std::sqrt(xx) * std::sqrt(yy)) : 0;
  }
  return absl::OkStatus();
}

}  // namespace lwq
