#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/host_matrix.h"
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

// Its columns as given: weights know how to round them.
class ReferenceInput : public PreparedInput {
 public:
  ReferenceInput(int64_t rows, int64_t features) : values(rows, features) {
    std::fill_n(values.data(), values.size(), 0.0f);
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

double At(const float* bias, int64_t n) { return bias == nullptr ? 0 : bias[n]; }

}  // namespace

absl::StatusOr<std::unique_ptr<PreparedWeight>> ReferenceDevice::PrepareWeight(
    ConstMatrixView weight, ComputeType type) {
  Matrix copy(weight.rows, weight.cols);
  if (copy.data() == nullptr) return absl::ResourceExhaustedError("no memory for a weight");
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.cols; ++c) copy.Row(r)[c] = RoundTo(type, weight.Row(r)[c]);
  }
  return std::make_unique<ReferenceWeight>(std::move(copy), type);
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> ReferenceDevice::PrepareTransposed(
    ConstMatrixView b, ComputeType type) {
  Matrix weight(b.cols, b.rows);
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) weight.Row(c)[r] = b.Row(r)[c];
  }
  return PrepareWeight(weight.view(), type);
}

absl::StatusOr<std::unique_ptr<PreparedInput>> ReferenceDevice::NewInput(int64_t rows,
                                                                         int64_t features,
                                                                         ComputeType) {
  return std::make_unique<ReferenceInput>(rows, features);
}

absl::Status ReferenceDevice::SetColumns(ConstMatrixView values, int64_t first,
                                         PreparedInput& input) {
  auto* own = dynamic_cast<ReferenceInput*>(&input);
  if (own == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("input's columns", values, own->rows(), values.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("input's columns", first, values.cols, own->features()));
  for (int64_t r = 0; r < values.rows; ++r) {
    std::copy_n(values.Row(r), values.cols, own->values.Row(r) + first);
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::Linear(const PreparedInput& x, BiasedWeight weight, MatrixView y) {
  const auto* input = dynamic_cast<const ReferenceInput*>(&x);
  if (input == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  return Linear(input->values.view(), weight, y);
}

absl::Status ReferenceDevice::Linear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  return ForEachProduct(x, *weight.weight, y, [&](int64_t t, int64_t n, double sum) {
    y.Row(t)[n] = static_cast<float>(sum + At(weight.bias, n));
  });
}

absl::Status ReferenceDevice::AddLinear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  return ForEachProduct(x, *weight.weight, y, [&](int64_t t, int64_t n, double sum) {
    y.Row(t)[n] = static_cast<float>(y.Row(t)[n] + sum + At(weight.bias, n));
  });
}

absl::Status ReferenceDevice::SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                             MatrixView y) {
  const auto* input = dynamic_cast<const ReferenceInput*>(&x);
  if (input == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  return SubtractLinear(input->values.view(), weight, y);
}

absl::Status ReferenceDevice::SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                                             MatrixView y) {
  return ForEachProduct(x, weight, y, [&](int64_t t, int64_t n, double sum) {
    y.Row(t)[n] = static_cast<float>(y.Row(t)[n] - sum);
  });
}

absl::Status ReferenceDevice::GatedLinear(ConstMatrixView x, BiasedWeight gate, BiasedWeight up,
                                          MatrixView y) {
  LWQ_RETURN_IF_ERROR(Linear(x, gate, y));
  return ForEachProduct(x, *up.weight, y, [&](int64_t t, int64_t n, double sum) {
    const double g = y.Row(t)[n];
    y.Row(t)[n] = static_cast<float>(g / (1 + std::exp(-g)) * (sum + At(up.bias, n)));
  });
}

absl::Status ReferenceDevice::SubtractProduct(ConstMatrixView a, ConstMatrixView b, MatrixView c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  for (int64_t m = 0; m < c.rows; ++m) {
    for (int64_t n = 0; n < c.cols; ++n) {
      double sum = c.Row(m)[n];
      for (int64_t k = 0; k < a.cols; ++k) {
        sum -= double{a.Row(m)[k]} * b.Row(k)[n];
      }
      c.Row(m)[n] = static_cast<float>(sum);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceDevice::AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  for (int64_t i = 0; i < x.cols; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = gram.Row(i)[j];
      for (int64_t t = 0; t < x.rows; ++t) {
        sum += double{RoundTo(type, x.Row(t)[i])} * RoundTo(type, x.Row(t)[j]);
      }
      gram.Row(i)[j] = static_cast<float>(sum);
    }
  }
  return absl::OkStatus();
}

}  // namespace lwq
