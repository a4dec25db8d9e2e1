#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cuda/attention_kernels.h"
#include "worker/engine/device/cuda/cuda_device.h"
#include "worker/engine/device/cuda/device_views.h"
#include "worker/engine/device/cuda/query_tiles.h"
#include "worker/engine/device/cuda/row_kernels.h"
#include "worker/engine/tensor/fp8.h"

namespace lwq {

using cuda::CudaBatch;
using cuda::CudaRopeTable;
using cuda::SpanOf;
using cuda::StatusOf;
using cuda::ViewOf;

namespace {

template <typename T>
absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> ToDevice(Device& device,
                                                          absl::Span<const T> host) {
  LWQ_ASSIGN_OR_RETURN(auto buffer, device.NewBuffer<T>(1, static_cast<int64_t>(host.size())));
  LWQ_RETURN_IF_ERROR(device.Upload<T>(host, buffer->span()));
  return buffer;
}

}  // namespace

absl::Status CudaDevice::RmsNorm(DeviceView<const float> x, DeviceSpan<const float> weight,
                                 float epsilon, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("norm's output", out, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("norm's weight", weight.size, x.cols));
  return StatusOf(cuda::RmsNorm(stream(), ViewOf(x), SpanOf(weight), epsilon, ViewOf(out)),
                  "a norm");
}

absl::StatusOr<std::unique_ptr<DeviceBatch>> CudaDevice::NewBatch(
    absl::Span<const Segment> segments, absl::Span<const int32_t> positions) {
  const int64_t rows = static_cast<int64_t>(positions.size());
  LWQ_RETURN_IF_ERROR(CheckSegments(segments, rows));
  if (rows > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("a batch of ", rows, " rows is too long"));
  }
  int32_t last = -1;
  for (const int32_t position : positions) {
    if (position < 0) {
      return absl::InvalidArgumentError(absl::StrCat("a batch has a row at position ", position));
    }
    last = std::max(last, position);
  }
  const cuda::AttentionPlan plan = cuda::PlanAttention(segments);
  LWQ_ASSIGN_OR_RETURN(auto on_device, ToDevice<int32_t>(*this, positions));
  LWQ_ASSIGN_OR_RETURN(auto tiles, ToDevice<cuda::QueryTile>(*this, plan.tiles));
  LWQ_ASSIGN_OR_RETURN(auto ranges, ToDevice<cuda::KeyRange>(*this, plan.ranges));
  return std::make_unique<CudaBatch>(std::move(on_device), std::move(tiles), std::move(ranges),
                                     std::vector<Segment>(segments.begin(), segments.end()), last);
}

absl::StatusOr<std::unique_ptr<RopeTable>> CudaDevice::NewRopeTable(const RopeSettings& settings,
                                                                    int64_t num_positions) {
  LWQ_RETURN_IF_ERROR(CheckRopeSettings(settings, num_positions));
  const int64_t half = static_cast<int64_t>(settings.inverse_frequency.size());
  Matrix cosine(num_positions, half), sine(num_positions, half);
  if (num_positions > 0 && (cosine.data() == nullptr || sine.data() == nullptr)) {
    return absl::ResourceExhaustedError("no memory for a table of rotations");
  }
  host_threads_.ParallelForBlocks(num_positions, 256, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        // The angle is an F32 product by definition: that is what models were trained with.
        const double angle = static_cast<float>(p) * settings.inverse_frequency[i];
        cosine.Row(p)[i] = static_cast<float>(std::cos(angle) * settings.attention_factor);
        sine.Row(p)[i] = static_cast<float>(std::sin(angle) * settings.attention_factor);
      }
    }
  });
  LWQ_ASSIGN_OR_RETURN(auto cosine_on_device, NewMatrix(num_positions, half));
  LWQ_ASSIGN_OR_RETURN(auto sine_on_device, NewMatrix(num_positions, half));
  LWQ_RETURN_IF_ERROR(Upload<float>(cosine.view(), cosine_on_device->view()));
  LWQ_RETURN_IF_ERROR(Upload<float>(sine.view(), sine_on_device->view()));
  return std::make_unique<CudaRopeTable>(
      std::move(cosine_on_device), std::move(sine_on_device),
      settings.head_dim == 0 ? static_cast<int>(2 * half) : settings.head_dim, num_positions);
}

absl::Status CudaDevice::Rope(const DeviceBatch& batch, const RopeTable& table,
                              DeviceView<float> x) {
  LWQ_ASSIGN_OR_RETURN(const CudaBatch* own, cuda::OwnOf<CudaBatch>(batch, "batch"));
  LWQ_ASSIGN_OR_RETURN(const CudaRopeTable* rotations, cuda::OwnOf<CudaRopeTable>(table, "table"));
  LWQ_RETURN_IF_ERROR(CheckRope(batch, own->last_position(), table, x));
  return StatusOf(cuda::Rope(stream(), SpanOf(own->positions()), ViewOf(rotations->cosine()),
                             ViewOf(rotations->sine()), rotations->head_dim(), ViewOf(x)),
                  "a rotary embedding");
}

absl::Status CudaDevice::Attention(DeviceView<const float> q, DeviceView<const float> k,
                                   DeviceView<const float> v, const DeviceBatch& batch,
                                   const AttentionShape& shape, DeviceView<float> out) {
  LWQ_ASSIGN_OR_RETURN(const CudaBatch* own, cuda::OwnOf<CudaBatch>(batch, "batch"));
  LWQ_RETURN_IF_ERROR(CheckAttention(q, k, v, batch, shape, out));
  if (shape.head_dim > cuda::kLargestHead) {
    return absl::UnimplementedError(absl::StrCat("attention with heads of ", shape.head_dim,
                                                 " values on ", name_, ", at most ",
                                                 cuda::kLargestHead));
  }
  LWQ_RETURN_IF_ERROR(CheckQueryRows(own->segments(), batch.rows() - q.rows));
  const cuda::AttentionNumbers numbers{shape.num_heads, shape.num_kv_heads,   shape.head_dim,
                                       shape.scale,     shape.sliding_window, shape.logit_softcap};
  return StatusOf(cuda::Attention(stream(), ViewOf(q), ViewOf(k), ViewOf(v), SpanOf(own->tiles()),
                                  SpanOf(own->ranges()), numbers, ViewOf(out)),
                  "attention");
}

absl::Status CudaDevice::Gate(DeviceView<const float> gate, DeviceView<const float> up,
                              Activation activation, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckGate(gate, up, out));
  const auto kind =
      activation == Activation::kSilu ? cuda::GateKind::kSilu : cuda::GateKind::kGeluTanh;
  return StatusOf(cuda::Gate(stream(), ViewOf(gate), ViewOf(up), kind, ViewOf(out)), "gating");
}

absl::Status CudaDevice::SoftCap(float cap, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckSoftCap(cap));
  return StatusOf(cuda::SoftCap(stream(), cap, ViewOf(x)), "a soft cap");
}

absl::Status CudaDevice::RoundRows(ActivationRule rule, DeviceView<float> x) {
  if (rule == ActivationRule::kNone) return absl::OkStatus();
  const bool integers = rule == ActivationRule::kInt8PerToken;
  return StatusOf(integers ? cuda::RoundRowsToInt8(stream(), kInt8Range, ViewOf(x))
                           : cuda::RoundRowsToE4M3(stream(), kE4M3Largest, ViewOf(x)),
                  "rounding inputs");
}

absl::Status CudaDevice::Add(DeviceView<const float> x, DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckShape("summand", x, y.rows, y.cols));
  return StatusOf(cuda::Add(stream(), ViewOf(x), ViewOf(y)), "a sum");
}

absl::Status CudaDevice::Subtract(DeviceView<const float> a, DeviceView<const float> b,
                                  DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("minuend", a, out.rows, out.cols));
  LWQ_RETURN_IF_ERROR(CheckShape("subtrahend", b, out.rows, out.cols));
  return StatusOf(cuda::Subtract(stream(), ViewOf(a), ViewOf(b), ViewOf(out)), "a difference");
}

absl::Status CudaDevice::LogSoftmax(DeviceView<float> logits) {
  return StatusOf(cuda::LogSoftmax(stream(), ViewOf(logits)), "a log-softmax");
}

absl::Status CudaDevice::KlDivergence(DeviceView<const float> source,
                                      DeviceView<const float> candidate, DeviceSpan<double> kl) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' divergences", kl.size, source.rows));
  return StatusOf(cuda::KlDivergence(stream(), ViewOf(source), ViewOf(candidate), SpanOf(kl)),
                  "a divergence");
}

absl::Status CudaDevice::SumLogits(DeviceView<const float> logits, int64_t first_token,
                                   const LogitSums& sums) {
  LWQ_RETURN_IF_ERROR(CheckSums(logits, sums));
  return StatusOf(cuda::SumLogits(stream(), ViewOf(logits), first_token, SpanOf(sums.top),
                                  SpanOf(sums.best), SpanOf(sums.total)),
                  "sums of logits");
}

absl::Status CudaDevice::SumLogitGaps(DeviceView<const float> source,
                                      DeviceSpan<const float> source_top,
                                      DeviceView<const float> candidate, int64_t first_token,
                                      const LogitGaps& gaps) {
  LWQ_RETURN_IF_ERROR(CheckGaps(source, source_top, candidate, gaps));
  return StatusOf(
      cuda::SumLogitGaps(stream(), ViewOf(source), SpanOf(source_top), ViewOf(candidate),
                         first_token, SpanOf(gaps.top), SpanOf(gaps.total)),
      "sums of differences of logits");
}

absl::Status CudaDevice::Pick(DeviceView<const float> m, DeviceSpan<const int32_t> rows,
                              DeviceSpan<const int32_t> columns, DeviceSpan<float> out) {
  LWQ_RETURN_IF_ERROR(CheckLength("places' columns", columns.size, rows.size));
  LWQ_RETURN_IF_ERROR(CheckLength("picked elements", out.size, rows.size));
  LWQ_ASSIGN_OR_RETURN(
      const auto place, checks_->Add([num_rows = m.rows, num_cols = m.cols](int64_t first, float) {
        return absl::InvalidArgumentError(
            absl::StrCat("place ", first, " lies outside [", num_rows, ", ", num_cols, "]"));
      }));
  return StatusOf(
      cuda::Pick(stream(), ViewOf(m), SpanOf(rows), SpanOf(columns), SpanOf(out), place.first),
      "picking elements");
}

absl::Status CudaDevice::RowCosine(DeviceView<const float> x, DeviceView<const float> y,
                                   DeviceSpan<double> out) {
  LWQ_RETURN_IF_ERROR(CheckShape("second operand", y, x.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' cosines", out.size, x.rows));
  return StatusOf(cuda::RowCosine(stream(), ViewOf(x), ViewOf(y), SpanOf(out)), "cosines");
}

}  // namespace lwq
