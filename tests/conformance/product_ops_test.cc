// Matrix products of every device against the reference, in both compute types. Bounds are derived:
// a sum of n products in F32 errs by at most about n * eps * sum |a b| in the worst case and
// sqrt(n) of that in practice; the small factors below are over the latter. Shapes do not divide
// the tiles.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string_view>
#include <tuple>

#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

struct ProductShape {
  int64_t tokens, in, out;
};

struct ProductCase {
  const TestDevice* device;
  ProductShape shape;
  ComputeType type;
};

std::vector<ProductCase> ProductCases() {
  const ProductShape small[] = {{1, 32, 48}, {7, 96, 33}, {3, 1, 1}, {65, 130, 67}};
  const ProductShape large[] = {{256, 64, 512},
                                {300, 160, 515},
                                {257, 520, 1025},
                                // Enough for the CPU's largest tiles, and a rest.
                                {1030, 40, 2080},
                                {30, 1200, 20}};
  std::vector<ProductCase> cases;
  for (const TestDevice& device : TestDevices()) {
    for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      for (const ProductShape& shape : small) cases.push_back({&device, shape, type});
      if (device.slow) continue;
      for (const ProductShape& shape : large) cases.push_back({&device, shape, type});
    }
  }
  return cases;
}

std::string CaseName(const ::testing::TestParamInfo<ProductCase>& info) {
  const auto& [device, shape, type] = info.param;
  return absl::StrCat(device->name, "_", shape.tokens, "x", shape.in, "x", shape.out, "_",
                      NameOf(type));
}

class ProductOps : public ::testing::TestWithParam<ProductCase> {
 protected:
  // Of a sum of `in` products of inputs below 1 and weights below .1, and of what is added to it.
  // BF16 inputs are the same on both devices, but BF16 instructions sum pairs with an intermediate
  // rounding.
  double SumBound(double largest_addend = 1) const {
    return 8 * kEps * (0.1 * static_cast<double>(shape_.in) + largest_addend);
  }
  Matrix Inputs() const { return Random(shape_.tokens, shape_.in, 1); }
  Matrix Weight(uint64_t seed = 2) const { return Random(shape_.out, shape_.in, seed, 0.1f); }
  absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepared(Device& device,
                                                           const Matrix& weight) const {
    return device.PrepareWeight(OnDevice(&device, weight.view())->view(), type_);
  }

  const TestDevice& test_device_ = *GetParam().device;
  const ProductShape shape_ = GetParam().shape;
  const ComputeType type_ = GetParam().type;
};

TEST_P(ProductOps, LinearAgrees) {
  const Matrix x = Inputs(), w = Weight();
  const Matrix start = Random(shape_.tokens, shape_.out, 5), bias = Random(1, shape_.out, 6);
  for (const bool biased : {false, true}) {
    const auto with = [&](Device& device, const auto& multiply) -> absl::Status {
      LWQ_ASSIGN_OR_RETURN(const auto weight, Prepared(device, w));
      const auto on_device = OnDevice(&device, bias.view());
      const DeviceSpan<const float> b = on_device->span();
      return multiply(OnDevice(&device, x.view())->view(),
                      BiasedWeight(*weight, biased ? b : DeviceSpan<const float>()));
    };
    EXPECT_TRUE(Judge(
                    test_device_,
                    [&](Device& device, DeviceView<float> out) {
                      return with(device, [&](DeviceView<const float> in, BiasedWeight weight) {
                        return device.Linear(in, weight, out);
                      });
                    },
                    start)
                    .Within(SumBound()));
    EXPECT_TRUE(Judge(
                    test_device_,
                    [&](Device& device, DeviceView<float> out) {
                      return with(device, [&](DeviceView<const float> in, BiasedWeight weight) {
                        return device.AddLinear(in, weight, out);
                      });
                    },
                    start)
                    .Within(SumBound()));
  }
  EXPECT_TRUE(Judge(
                  test_device_,
                  [&](Device& device, DeviceView<float> out) -> absl::Status {
                    LWQ_ASSIGN_OR_RETURN(const auto weight, Prepared(device, w));
                    return device.SubtractLinear(OnDevice(&device, x.view())->view(), *weight, out);
                  },
                  start)
                  .Within(SumBound()));
}

// Columns set in two overlapping parts, the second over the first; the others stay zero.
TEST_P(ProductOps, LinearOfAPreparedInputAgrees) {
  const int64_t first = shape_.in / 4, half = shape_.in / 2;
  const Matrix w = Weight(), bias = Random(1, shape_.out, 6);
  const Matrix one = Random(shape_.tokens, half, 1), two = Random(shape_.tokens, half, 3);
  const Matrix start = Zeros(shape_.tokens, shape_.out);
  const auto product = [&](Device& device, DeviceView<float> out) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const auto weight, Prepared(device, w));
    LWQ_ASSIGN_OR_RETURN(const auto input, device.NewInput(shape_.tokens, shape_.in, type_));
    LWQ_RETURN_IF_ERROR(device.SetColumns(OnDevice(&device, one.view())->view(), first, *input));
    LWQ_RETURN_IF_ERROR(device.SetColumns(OnDevice(&device, two.view())->view(), half, *input));
    return device.Linear(*input, {*weight, OnDevice(&device, bias.view())->span()}, out);
  };
  EXPECT_TRUE(Judge(test_device_, product, start).Within(SumBound()));
  // The same sums as of the matrix itself, but that cuBLAS may choose another kernel where only one
  // of the two has aligned rows.
  if (std::string_view(test_device_.name) == "cuda" && shape_.in % 4 != 0) return;
  Matrix x = Zeros(shape_.tokens, shape_.in);
  for (int64_t r = 0; r < shape_.tokens; ++r) {
    std::copy_n(one.Row(r), half, x.Row(r) + first);
    std::copy_n(two.Row(r), half, x.Row(r) + half);
  }
  const auto device = test_device_.make(2);
  const auto prepared = OnDevice(device.get(), start.view());
  const auto plain = OnDevice(device.get(), start.view());
  ASSERT_OK(product(*device, prepared->view()));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto weight, Prepared(*device, w));
  ASSERT_OK(device->Linear(OnDevice(device.get(), x.view())->view(),
                           {*weight, OnDevice(device.get(), bias.view())->span()}, plain->view()));
  EXPECT_EQ(ElementsOf(*device, plain->view()), ElementsOf(*device, prepared->view()));
}

// Large inputs have parts that are not multiplied where all their columns are zero.
TEST_P(ProductOps, APreparedInputIsZeroBeforeItsFirstColumn) {
  const Matrix w = Weight(), start = Random(shape_.tokens, shape_.out, 5);
  for (const int64_t first : {shape_.in / 2, shape_.in * 3 / 4, shape_.in}) {
    const Matrix last = Random(shape_.tokens, shape_.in - first, 1);
    EXPECT_TRUE(Judge(
                    test_device_,
                    [&](Device& device, DeviceView<float> out) -> absl::Status {
                      LWQ_ASSIGN_OR_RETURN(const auto weight, Prepared(device, w));
                      LWQ_ASSIGN_OR_RETURN(const auto input,
                                           device.NewInput(shape_.tokens, shape_.in, type_));
                      LWQ_RETURN_IF_ERROR(
                          device.SetColumns(OnDevice(&device, last.view())->view(), first, *input));
                      return device.SubtractLinear(*input, *weight, out);
                    },
                    start)
                    .Within(SumBound()));
  }
}

TEST_P(ProductOps, TransposedWeightsAreTheSame) {
  const Matrix x = Inputs(), b = Random(shape_.in, shape_.out + 5, 2);
  Matrix w(shape_.out, shape_.in);
  for (int64_t n = 0; n < shape_.out; ++n) {
    for (int64_t k = 0; k < shape_.in; ++k) w.Row(n)[k] = b.Row(k)[n + 5];
  }
  const auto device = test_device_.make(2);
  const auto got = *device->NewMatrix(shape_.tokens, shape_.out);
  const auto want = *device->NewMatrix(shape_.tokens, shape_.out);
  const auto inputs = OnDevice(device.get(), x.view());
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto one, device->PrepareTransposed(
                          OnDevice(device.get(), b.view())->view().Cols(5, shape_.out), type_));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto other, Prepared(*device, w));
  ASSERT_OK(device->Linear(inputs->view(), *one, got->view()));
  ASSERT_OK(device->Linear(inputs->view(), *other, want->view()));
  EXPECT_EQ(ElementsOf(*device, got->view()), ElementsOf(*device, want->view()));
}

TEST_P(ProductOps, GatedLinearAgrees) {
  const Matrix x = Inputs(), gate = Weight(2), up = Weight(3), bias = Random(2, shape_.out, 4);
  const Matrix start = Zeros(shape_.tokens, shape_.out);
  for (const auto& [activation, biased] : {std::pair(Activation::kSilu, false),
                                           {Activation::kSilu, true},
                                           {Activation::kGeluTanh, false},
                                           {Activation::kGeluTanh, true}}) {
    // Both factors err as Linear's result does (the slopes of both activations are below 1.2) and
    // are below `largest`: the sums' spread is .1 sqrt(in) / 3.
    const double in = static_cast<double>(shape_.in), addend = biased ? 1 : 0;
    const double largest = addend + 0.1 * std::min(in, 4 * std::sqrt(in));
    const double bound = 3 * largest * (SumBound(addend) + 8 * kEps * largest);
    EXPECT_TRUE(Judge(
                    test_device_,
                    [&, activation = activation, biased = biased](
                        Device& device, DeviceView<float> out) -> absl::Status {
                      LWQ_ASSIGN_OR_RETURN(const auto g, Prepared(device, gate));
                      LWQ_ASSIGN_OR_RETURN(const auto u, Prepared(device, up));
                      const auto in = OnDevice(&device, x.view());
                      if (!biased) return device.GatedLinear(in->view(), *g, *u, activation, out);
                      const auto b = OnDevice(&device, bias.view());
                      return device.GatedLinear(in->view(), {*g, b->view().Row(0)},
                                                {*u, b->view().Row(1)}, activation, out);
                    },
                    start)
                    .Within(bound));
  }
}

TEST_P(ProductOps, GramAgreesBelowTheDiagonal) {
  const Matrix x = Random(shape_.tokens, shape_.in, 3);
  const Matrix before = Random(shape_.in, shape_.in, 4), start = Zeros(shape_.in, shape_.in);
  std::vector<int32_t> in_order(static_cast<size_t>(shape_.in));
  for (size_t i = 0; i < in_order.size(); ++i) in_order[i] = static_cast<int32_t>(i);
  EXPECT_TRUE(Judge(
                  test_device_,
                  [&](Device& device, DeviceView<float> out) -> absl::Status {
                    const auto gram = OnDevice(&device, before.view());
                    LWQ_RETURN_IF_ERROR(device.AccumulateGram(OnDevice(&device, x.view())->view(),
                                                              type_, gram->view()));
                    return device.PermuteLower(gram->view(), VectorOn(device, in_order)->span(),
                                               out);
                  },
                  start)
                  .Within(8 * kEps * (1 + static_cast<double>(shape_.tokens))));
}

INSTANTIATE_TEST_SUITE_P(Devices, ProductOps, ::testing::ValuesIn(ProductCases()), CaseName);

class ProductEdges : public DeviceTest {};

TEST_P(ProductEdges, ProductsOfNoRowsAreFine) {
  for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
    const auto w = OnDevice(device_.get(), Zeros(8, 16).view());
    const auto x = *device_->NewMatrix(0, 16), y = *device_->NewMatrix(0, 8);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto weight, device_->PrepareWeight(w->view(), type));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto input, device_->NewInput(0, 16, type));
    EXPECT_OK(device_->Linear(x->view(), *weight, y->view()));
    EXPECT_OK(device_->SubtractLinear(x->view(), *weight, y->view()));
    EXPECT_OK(device_->Linear(*input, *weight, y->view()));
    EXPECT_OK(device_->SubtractLinear(*input, *weight, y->view()));
  }
}

TEST_P(ProductEdges, WhatDoesNotFitIsRefused) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto w = *device_->NewMatrix(8, 16), y = *device_->NewMatrix(3, 8);
  ASSERT_OK(device_->FillZero(w->view()));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto input, device_->NewInput(3, 12, ComputeType::kF32));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto weight, device_->PrepareWeight(w->view(), ComputeType::kF32));
  EXPECT_EQ(device_->SetColumns(w->Rows(0, 3), 0, *input).code(), kInvalid);
  EXPECT_EQ(device_->SetColumns(w->Rows(0, 2).Cols(0, 4), 0, *input).code(), kInvalid);
  EXPECT_EQ(device_->Linear(*input, *weight, y->view()).code(), kInvalid);
  EXPECT_EQ(device_->SubtractLinear(*input, *weight, y->view()).code(), kInvalid);
  EXPECT_THAT(device_->Linear(w->Rows(0, 3).Cols(0, 9), *weight, y->view()),
              StatusIs(kInvalid, ::testing::HasSubstr("[3, 9]")));
  EXPECT_EQ(device_->Linear(w->Rows(0, 3), {*weight, w->view().Row(0)}, y->view()).code(), kInvalid)
      << "a bias of 16 for 8 outputs";
}

TEST_P(ProductEdges, LinearReadsAndWritesStridedMatrices) {
  const Matrix x = Random(70, 100, 1), w = Random(40, 64, 2), start = Zeros(70, 90);
  EXPECT_TRUE(Judge(
                  *GetParam(),
                  [&](Device& device, DeviceView<float> out) -> absl::Status {
                    LWQ_ASSIGN_OR_RETURN(const auto weight,
                                         device.PrepareWeight(OnDevice(&device, w.view())->view(),
                                                              ComputeType::kF32));
                    return device.Linear(OnDevice(&device, x.view())->view().Cols(9, 64), *weight,
                                         out.Cols(11, 40));
                  },
                  start)
                  .Within(8 * 64 * kEps));
}

TEST_P(ProductEdges, BF16RoundsTheInputs) {
  Matrix x = Zeros(1, 32), w = Zeros(32, 32);
  x.data()[0] = 1 + 1.0f / 512;  // not a BF16 number: rounds to 1
  w.data()[0] = 1;
  const auto y = *device_->NewMatrix(1, 32);
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto weight,
      device_->PrepareWeight(OnDevice(device_.get(), w.view())->view(), ComputeType::kBF16));
  ASSERT_OK(device_->Linear(OnDevice(device_.get(), x.view())->view(), *weight, y->view()));
  EXPECT_EQ(OnHost(*device_, y->view()).data()[0], 1);
}

TEST_P(ProductEdges, SubtractProductAgrees) {
  for (auto [m, n, k] : {std::tuple{1, 40, 3}, {64, 64, 64}, {259, 517, 128}, {1030, 2080, 16}}) {
    if (GetParam()->slow && m > 100) continue;
    const Matrix a = Random(m, k, 1), b = Random(k, n + 5, 2), start = Random(m, n, 3);
    EXPECT_TRUE(Judge(
                    *GetParam(),
                    [&, n = n](Device& device, DeviceView<float> out) {
                      return device.SubtractProduct(OnDevice(&device, a.view())->view(),
                                                    OnDevice(&device, b.view())->view().Cols(5, n),
                                                    out);
                    },
                    start)
                    .Within(8 * kEps * (1 + k)));
  }
}

TEST_P(ProductEdges, LargeGatesStayFinite) {
  Matrix gate(4, 1), up(4, 1), x(1, 1);
  x.data()[0] = 1;
  const float gates[] = {-1e4f, -90, 90, 1e4f};
  std::copy_n(gates, 4, gate.data());
  std::fill_n(up.data(), 4, 1.0f);
  const auto prepare = [&](const Matrix& weight) {
    return *device_->PrepareWeight(OnDevice(device_.get(), weight.view())->view(),
                                   ComputeType::kF32);
  };
  const auto g = prepare(gate), u = prepare(up);
  const auto y = *device_->NewMatrix(1, 4);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    ASSERT_OK(device_->GatedLinear(OnDevice(device_.get(), x.view())->view(), *g, *u, activation,
                                   y->view()));
    const std::vector<float> out = ElementsOf(*device_, y->view());
    EXPECT_NEAR(out[0], 0, 1e-30);
    EXPECT_NEAR(out[1], 0, 1e-30);
    EXPECT_EQ(out[2], 90);
    EXPECT_EQ(out[3], 1e4f);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ProductEdges, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
