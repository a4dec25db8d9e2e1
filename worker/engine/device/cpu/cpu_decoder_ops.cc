// The CPU device's decoder operations.
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq {

absl::Status CpuDevice::RmsNorm(ConstMatrixView x, const float* weight, float epsilon,
                                MatrixView out) {
  return ReferenceDevice().RmsNorm(x, weight, epsilon, out);
}
absl::Status CpuDevice::Rope(MatrixView x, int head_dim, absl::Span<const int32_t> positions,
                             const RopeTable& table) {
  return ReferenceDevice().Rope(x, head_dim, positions, table);
}
absl::Status CpuDevice::Attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v,
                                  absl::Span<const Segment> segments, const AttentionShape& shape,
                                  MatrixView out) {
  return ReferenceDevice().Attention(q, k, v, segments, shape, out);
}
absl::Status CpuDevice::SwiGlu(ConstMatrixView gate, ConstMatrixView up, MatrixView out) {
  return ReferenceDevice().SwiGlu(gate, up, out);
}
absl::Status CpuDevice::Add(ConstMatrixView x, MatrixView y) { return ReferenceDevice().Add(x, y); }
absl::Status CpuDevice::AddBias(const float* bias, MatrixView x) {
  return ReferenceDevice().AddBias(bias, x);
}
absl::Status CpuDevice::LogSoftmax(MatrixView logits) {
  return ReferenceDevice().LogSoftmax(logits);
}
absl::Status CpuDevice::KlDivergence(ConstMatrixView source, ConstMatrixView candidate,
                                     absl::Span<double> kl) {
  return ReferenceDevice().KlDivergence(source, candidate, kl);
}
absl::Status CpuDevice::RowCosine(ConstMatrixView x, ConstMatrixView y, absl::Span<double> out) {
  return ReferenceDevice().RowCosine(x, y, out);
}

}  // namespace lwq
