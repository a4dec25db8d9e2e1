#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/reference/activate.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

// The weight as it is, rounded to the compute type.
class ReferenceWeight : public PreparedWeight {
 public:
  ReferenceWeight(Matrix weight, ComputeType type) : weight_(std::move(weight)), type_(type) {}
  int64_t out_features() const override { return weight_.rows(); }
  int64_t in_features() const override { return weight_.cols(); }
  int64_t size_bytes() const override { return weight_.size() * int64_t{sizeof(float)}; }
  const Matrix& matrix() const { return weight_; }
  ComputeType type() const { return type_; }

 private:
  Matrix weight_;
  ComputeType type_;
};

float RoundTo(ComputeType type, float value) {
  return type == ComputeType::kBF16 ? BF16ToFloat(FloatToBF16(value)) : value;
}

// Its columns as given: weights know how to round them. Null when there is no memory.
class ReferenceInput : public PreparedInput {
 public:
  ReferenceInput(int64_t rows, int64_t features) : values(rows, features) {
    if (values.data() != nullptr) std::fill_n(values.data(), values.size(), 0.0f);
  }
  int64_t rows() const override { return values.rows(); }
  int64_t features() const override { return values.cols(); }

  Matrix values;
};

// Calls store(t, n, sum) for each element of x weight^T.
template <typename Store>
absl::Status ForEachProduct(ConstMatrixView x, const PreparedWeight& weight, MatrixView y,
                            Store&& store) {
  const auto* w = dynamic_cast<const ReferenceWeight*>(&weight);
  if (w == nullptr) return absl::InvalidArgumentError("weight was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("linear input", x, y.rows, w->in_features()));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, y.rows, w->out_features()));
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t n = 0; n < y.cols; ++n) {
      const float* row = w->matrix().Row(n);
      double sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        sum += double{RoundTo(w->type(), x.Row(t)[k])} * row[k];
      }
      store(t, n, sum);
    }
  }
  return absl::OkStatus();
}

// A bias as sums see it: zero where there is none.
class Bias {
 public:
  Bias(const HostSpace& space, DeviceSpan<const float> bias) : values_(space.Host(bias)) {}
  absl::Status Check(int64_t out_features) const {
    return values_.empty()
               ? absl::OkStatus()
               : CheckLength("bias", static_cast<int64_t>(values_.size()), out_features);
  }
  double operator[](int64_t n) const { return values_.empty() ? 0 : values_[n]; }

 private:
  const absl::Span<const float> values_;
};

absl::StatusOr<ConstMatrixView> ValuesOf(const PreparedInput& x) {
  const auto* input = dynamic_cast<const ReferenceInput*>(&x);
  if (input == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  return input->values.view();
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepared(Matrix weight, ComputeType type) {
  if (weight.data() == nullptr) return absl::ResourceExhaustedError("no memory for a weight");
  for (int64_t i = 0; i < weight.size(); ++i) weight.data()[i] = RoundTo(type, weight.data()[i]);
  return std::make_unique<ReferenceWeight>(std::move(weight), type);
}

absl::Status StoreLinear(const HostSpace& space, ConstMatrixView x, BiasedWeight weight,
                         MatrixView y) {
  const Bias bias(space, weight.bias);
  LWQ_RETURN_IF_ERROR(bias.Check(y.cols));
  return ForEachProduct(x, *weight.weight, y, [&](int64_t t, int64_t n, double sum) {
    y.Row(t)[n] = static_cast<float>(sum + bias[n]);
  });
}

absl::Status SubtractSums(ConstMatrixView x, const PreparedWeight& weight, MatrixView y) {
  return ForEachProduct(x, weight, y, [&](int64_t t, int64_t n, double sum) {
    y.Row(t)[n] = static_cast<float>(y.Row(t)[n] - sum);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreparedWeight>> ReferenceDevice::PrepareWeight(
    DeviceView<const float> weight, ComputeType type) {
  Matrix copy(weight.rows, weight.cols);
  for (int64_t r = 0; r < weight.rows && copy.data() != nullptr; ++r) {
    std::copy_n(Row(weight, r), weight.cols, copy.Row(r));
  }
  return Prepared(std::move(copy), type);
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> ReferenceDevice::PrepareTransposed(
    DeviceView<const float> b, ComputeType type) {
  Matrix copy(b.cols, b.rows);
  for (int64_t r = 0; r < b.rows && copy.data() != nullptr; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) copy.Row(c)[r] = Row(b, r)[c];
  }
  return Prepared(std::move(copy), type);
}

absl::StatusOr<std::unique_ptr<PreparedInput>> ReferenceDevice::NewInput(int64_t rows,
                                                                         int64_t features,
                                                                         ComputeType) {
  auto input = std::make_unique<ReferenceInput>(rows, features);
  if (input->values.data() == nullptr)
    return absl::ResourceExhaustedError("no memory for an input");
  return input;
}

absl::Status ReferenceDevice::SetColumns(DeviceView<const float> values, int64_t first,
                                         PreparedInput& input) {
  auto* own = dynamic_cast<ReferenceInput*>(&input);
  if (own == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("input's columns", values, own->rows(), values.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("input's columns", first, values.cols, own->features()));
  for (int64_t r = 0; r < values.rows; ++r) {
    std::copy_n(Row(values, r), values.cols, own->values.Row(r) + first);
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Linear(const PreparedInput& x, BiasedWeight weight,
                                     DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const ConstMatrixView values, ValuesOf(x));
  return StoreLinear(space_, values, weight, space_.Host(y));
}

absl::Status ReferenceDevice::Linear(DeviceView<const float> x, BiasedWeight weight,
                                     DeviceView<float> y) {
  return StoreLinear(space_, space_.Host(x), weight, space_.Host(y));
}

absl::Status ReferenceDevice::AddLinear(DeviceView<const float> x, BiasedWeight weight,
                                        DeviceView<float> y) {
  const Bias bias(space_, weight.bias);
  LWQ_RETURN_IF_ERROR(bias.Check(y.cols));
  const MatrixView out = space_.Host(y);
  return ForEachProduct(space_.Host(x), *weight.weight, out, [&](int64_t t, int64_t n, double sum) {
    out.Row(t)[n] = static_cast<float>(out.Row(t)[n] + sum + bias[n]);
  });
}

absl::Status ReferenceDevice::SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                             DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const ConstMatrixView values, ValuesOf(x));
  return SubtractSums(values, weight, space_.Host(y));
}

absl::Status ReferenceDevice::SubtractLinear(DeviceView<const float> x,
                                             const PreparedWeight& weight, DeviceView<float> y) {
  return SubtractSums(space_.Host(x), weight, space_.Host(y));
}

absl::Status ReferenceDevice::GatedLinear(DeviceView<const float> x, BiasedWeight gate,
                                          BiasedWeight up, Activation activation,
                                          DeviceView<float> y) {
  LWQ_RETURN_IF_ERROR(Linear(x, gate, y));
  const Bias bias(space_, up.bias);
  LWQ_RETURN_IF_ERROR(bias.Check(y.cols));
  const MatrixView out = space_.Host(y);
  return ForEachProduct(space_.Host(x), *up.weight, out, [&](int64_t t, int64_t n, double sum) {
    out.Row(t)[n] = static_cast<float>(Activate(activation, out.Row(t)[n]) * (sum + bias[n]));
  });
}

absl::Status ReferenceDevice::SubtractProduct(DeviceView<const float> a, DeviceView<const float> b,
                                              DeviceView<float> c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  for (int64_t m = 0; m < c.rows; ++m) {
    for (int64_t n = 0; n < c.cols; ++n) {
      double sum = Row(c, m)[n];
      for (int64_t k = 0; k < a.cols; ++k) {
        sum -= double{Row(a, m)[k]} * Row(b, k)[n];
      }
      Row(c, m)[n] = static_cast<float>(sum);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::AccumulateGram(DeviceView<const float> x, ComputeType type,
                                             DeviceView<float> gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  for (int64_t i = 0; i < x.cols; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = Row(gram, i)[j];
      for (int64_t t = 0; t < x.rows; ++t) {
        sum += double{RoundTo(type, Row(x, t)[i])} * RoundTo(type, Row(x, t)[j]);
      }
      Row(gram, i)[j] = static_cast<float>(sum);
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
