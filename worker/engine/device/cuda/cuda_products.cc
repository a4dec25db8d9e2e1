#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cuda/cuda_device.h"
#include "worker/engine/device/cuda/device_views.h"
#include "worker/engine/device/cuda/element_kernels.h"
#include "worker/engine/device/cuda/tile_kernels.h"

namespace lwq {

using cuda::CudaInput;
using cuda::CudaWeight;
using cuda::SpanOf;
using cuda::StatusOf;
using cuda::TypedMatrix;
using cuda::ViewOf;

namespace {

absl::Status CheckProduct(int64_t x_rows, int64_t x_cols, const PreparedWeight& weight,
                          DeviceView<const float> y) {
  if (x_cols != weight.in_features() || x_rows != y.rows) {
    return absl::InvalidArgumentError(absl::StrCat("linear input is [", x_rows, ", ", x_cols,
                                                   "], expected [", y.rows, ", ",
                                                   weight.in_features(), "]"));
  }
  return CheckShape("linear output", y, y.rows, weight.out_features());
}

}  // namespace

absl::StatusOr<TypedMatrix> CudaDevice::NewTyped(int64_t rows, int64_t cols, ComputeType type) {
  LWQ_ASSIGN_OR_RETURN(auto memory, Allocate(rows, TypedMatrix::Stride(cols, type),
                                             TypedMatrix::ElementBytes(type)));
  return TypedMatrix(std::move(memory), rows, cols, type);
}

absl::Status CudaDevice::Convert(DeviceView<const float> from, const TypedMatrix& to) {
  return StatusOf(to.type() == ComputeType::kBF16
                      ? cuda::RoundToBF16(stream(), ViewOf(from), to.bf16())
                      : cuda::CopyElements(stream(), ViewOf(from), to.f32()),
                  "converting a matrix");
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CudaDevice::PrepareWeight(
    DeviceView<const float> weight, ComputeType type) {
  LWQ_ASSIGN_OR_RETURN(TypedMatrix matrix, NewTyped(weight.rows, weight.cols, type));
  LWQ_RETURN_IF_ERROR(Convert(weight, matrix));
  return std::make_unique<CudaWeight>(std::move(matrix));
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CudaDevice::PrepareTransposed(
    DeviceView<const float> b, ComputeType type) {
  LWQ_ASSIGN_OR_RETURN(TypedMatrix matrix, NewTyped(b.cols, b.rows, type));
  LWQ_RETURN_IF_ERROR(StatusOf(type == ComputeType::kBF16
                                   ? cuda::Transpose(stream(), ViewOf(b), matrix.bf16())
                                   : cuda::Transpose(stream(), ViewOf(b), matrix.f32()),
                               "transposing a weight"));
  return std::make_unique<CudaWeight>(std::move(matrix));
}

absl::StatusOr<std::unique_ptr<PreparedInput>> CudaDevice::NewInput(int64_t rows, int64_t features,
                                                                    ComputeType type) {
  LWQ_ASSIGN_OR_RETURN(TypedMatrix matrix, NewTyped(rows, features, type));
  const int64_t bytes = matrix.size_bytes();
  if (bytes > 0) {
    LWQ_RETURN_IF_ERROR(
        StatusOf(cudaMemsetAsync(matrix.bf16().data, 0, static_cast<size_t>(bytes), stream()),
                 "clearing an input"));
  }
  return std::make_unique<CudaInput>(std::move(matrix));
}

absl::Status CudaDevice::SetColumns(DeviceView<const float> values, int64_t first,
                                    PreparedInput& input) {
  LWQ_ASSIGN_OR_RETURN(const CudaInput* own, cuda::OwnOf<CudaInput>(std::as_const(input), "input"));
  const TypedMatrix& matrix = own->matrix();
  LWQ_RETURN_IF_ERROR(CheckShape("input's columns", values, matrix.rows(), values.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("input's columns", first, values.cols, matrix.cols()));
  const auto part = [&](auto all) {
    all.data += first;
    all.cols = values.cols;
    return all;
  };
  return StatusOf(matrix.type() == ComputeType::kBF16
                      ? cuda::RoundToBF16(stream(), ViewOf(values), part(matrix.bf16()))
                      : cuda::CopyElements(stream(), ViewOf(values), part(matrix.f32())),
                  "setting an input's columns");
}

absl::Status CudaDevice::Multiply(float alpha, DeviceView<const float> x,
                                  const PreparedWeight& weight, float beta, DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CudaWeight* own, cuda::OwnOf<CudaWeight>(weight, "weight"));
  LWQ_RETURN_IF_ERROR(CheckProduct(x.rows, x.cols, weight, y));
  if (own->matrix().type() == ComputeType::kF32) {
    return blas_->TimesTransposed(alpha, ViewOf(x), own->matrix().operand(), beta, ViewOf(y));
  }
  LWQ_ASSIGN_OR_RETURN(const TypedMatrix rounded, NewTyped(x.rows, x.cols, ComputeType::kBF16));
  LWQ_RETURN_IF_ERROR(Convert(x, rounded));
  return blas_->TimesTransposed(alpha, rounded.operand(), own->matrix().operand(), beta, ViewOf(y));
}

absl::Status CudaDevice::Multiply(float alpha, const PreparedInput& x, const PreparedWeight& weight,
                                  float beta, DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CudaWeight* own, cuda::OwnOf<CudaWeight>(weight, "weight"));
  LWQ_ASSIGN_OR_RETURN(const CudaInput* input, cuda::OwnOf<CudaInput>(x, "input"));
  LWQ_RETURN_IF_ERROR(CheckProduct(x.rows(), x.features(), weight, y));
  if (own->matrix().type() != input->matrix().type()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an input prepared as ", NameOf(input->matrix().type()),
                     " for a weight prepared as ", NameOf(own->matrix().type())));
  }
  return blas_->TimesTransposed(alpha, input->matrix().operand(), own->matrix().operand(), beta,
                                ViewOf(y));
}

absl::StatusOr<float> CudaDevice::StartWith(DeviceSpan<const float> bias, DeviceView<float> y) {
  if (bias.empty()) return 0.0f;
  LWQ_RETURN_IF_ERROR(CheckLength("bias", bias.size, y.cols));
  LWQ_RETURN_IF_ERROR(
      StatusOf(cuda::FillRows(stream(), SpanOf(bias), ViewOf(y)), "starting with a bias"));
  return 1.0f;
}

absl::Status CudaDevice::Linear(DeviceView<const float> x, BiasedWeight weight,
                                DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckProduct(x.rows, x.cols, *weight.weight, y));
  LWQ_ASSIGN_OR_RETURN(const float beta, StartWith(weight.bias, y));
  return Multiply(1, x, *weight.weight, beta, y);
}

absl::Status CudaDevice::Linear(const PreparedInput& x, BiasedWeight weight, DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckProduct(x.rows(), x.features(), *weight.weight, y));
  LWQ_ASSIGN_OR_RETURN(const float beta, StartWith(weight.bias, y));
  return Multiply(1, x, *weight.weight, beta, y);
}

absl::Status CudaDevice::AddLinear(DeviceView<const float> x, BiasedWeight weight,
                                   DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(CheckProduct(x.rows, x.cols, *weight.weight, y));
  if (!weight.bias.empty()) {
    LWQ_RETURN_IF_ERROR(CheckLength("bias", weight.bias.size, y.cols));
    LWQ_RETURN_IF_ERROR(
        StatusOf(cuda::AddToRows(stream(), SpanOf(weight.bias), ViewOf(y)), "adding a bias"));
  }
  return Multiply(1, x, *weight.weight, 1, y);
}

absl::Status CudaDevice::SubtractLinear(DeviceView<const float> x, const PreparedWeight& weight,
                                        DeviceView<float> y) {
  return Multiply(-1, x, weight, 1, y);
}

absl::Status CudaDevice::SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                        DeviceView<float> y) {
  return Multiply(-1, x, weight, 1, y);
}

absl::Status CudaDevice::GatedLinear(DeviceView<const float> x, BiasedWeight gate, BiasedWeight up,
                                     Activation activation, DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const auto gates, NewMatrix(y.rows, y.cols));
  LWQ_RETURN_IF_ERROR(Linear(x, gate, gates->view()));
  LWQ_RETURN_IF_ERROR(Linear(x, up, y));
  return Gate(gates->view(), y, activation, y);
}

absl::Status CudaDevice::SubtractProduct(DeviceView<const float> a, DeviceView<const float> b,
                                         DeviceView<float> c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  return blas_->AddProduct(-1, ViewOf(a), ViewOf(b), ViewOf(c));
}

absl::Status CudaDevice::AccumulateGram(DeviceView<const float> x, ComputeType type,
                                        DeviceView<float> gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  if (type == ComputeType::kF32) return blas_->AddGram(ViewOf(x), ViewOf(gram));
  LWQ_ASSIGN_OR_RETURN(const TypedMatrix rounded, NewTyped(x.rows, x.cols, type));
  LWQ_RETURN_IF_ERROR(Convert(x, rounded));
  return blas_->AddGram(rounded.operand(), ViewOf(gram));
}

}  // namespace lwq
