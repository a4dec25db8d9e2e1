// Every operation of a decoder on every device against the reference, whose sums are in F64. Bounds
// are derived: a sum of n products in F32 errs by at most about n * eps * sum |a b| in the worst
// case and sqrt(n) of that in practice; k below is a small factor over the latter. Shapes do not
// divide the tiles. Results must be bit-identical for 1, 2 and 3 threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>

#include "tests/testing/status_matchers.h"
#include "worker/engine/device/device.h"

namespace lwq {
namespace {

constexpr double kEps = 6e-8;  // half a unit in the last place of F32
constexpr double kEpsBF16 = 1 / 256.0;

std::unique_ptr<Device> Make(const char* name, int threads = 2) {
  auto device = MakeDevice({.device = name, .num_threads = threads});
  return device.ok() ? std::move(device).value() : nullptr;
}

Matrix Random(int64_t rows, int64_t cols, uint64_t seed, float scale = 1) {
  std::mt19937_64 generator(seed);
  Matrix m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) {
    // Not a distribution of the standard library: those differ between implementations.
    const double u = static_cast<double>(generator() >> 11) * 0x1p-53;
    m.data()[i] = static_cast<float>((2 * u - 1) * scale);
  }
  return m;
}

Matrix Zeros(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  std::fill_n(m.data(), m.size(), 0.0f);
  return m;
}

// The largest |a - b| / (bound of that element); above 1 the check fails.
double Excess(const Matrix& a, const Matrix& b, const Matrix& bound) {
  double worst = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double{a.data()[i]} - b.data()[i]);
    if (!(difference <= bound.data()[i])) {
      worst = std::max(worst, bound.data()[i] > 0 ? difference / bound.data()[i] : INFINITY);
    }
    worst = std::max(worst, bound.data()[i] > 0 ? difference / bound.data()[i] : 0);
  }
  return worst;
}
Matrix Uniform(const Matrix& like, double bound) {
  Matrix m(like.rows(), like.cols());
  std::fill_n(m.data(), m.size(), static_cast<float>(bound));
  return m;
}

// An operation as a function of the device: fills `out` from fixed inputs.
using Operation = std::function<absl::Status(Device&, MatrixView out)>;

// cpu against reference within `bound`; a perturbed element must fail the same check; 1, 2 and 3
// threads must agree to the bit. `start` is what the output holds before.
void Judge(const Operation& operation, const Matrix& start, const Matrix& bound) {
  const auto run = [&](const char* name, int threads) {
    auto device = Make(name, threads);
    Matrix out(start.rows(), start.cols());
    std::copy_n(start.data(), start.size(), out.data());
    EXPECT_OK(operation(*device, out.view()));
    return out;
  };
  const Matrix expected = run("reference", 1);
  Matrix found = run("cpu", 1);
  EXPECT_LE(Excess(found, expected, bound), 1);
  for (int threads : {2, 3}) {
    const Matrix again = run("cpu", threads);
    EXPECT_EQ(
        std::memcmp(again.data(), found.data(), sizeof(float) * static_cast<size_t>(found.size())),
        0)
        << threads << " threads give other bits than one";
  }
  if (found.size() == 0) return;
  const int64_t at = found.size() / 2;
  found.data()[at] += 4 * bound.data()[at] + 1e-6f * (1 + std::abs(found.data()[at]));
  EXPECT_GT(Excess(found, expected, bound), 1) << "a wrong result passes";
}

struct ProductCase {
  int64_t tokens, in, out;
};
class Products : public ::testing::TestWithParam<std::tuple<ProductCase, ComputeType>> {};

TEST_P(Products, LinearAgrees) {
  const auto [shape, type] = GetParam();
  const Matrix x = Random(shape.tokens, shape.in, 1), w = Random(shape.out, shape.in, 2, 0.1f);
  // sqrt(n) roundings of a sum of n products below 0.1; BF16 inputs are the same on both devices,
  // but BF16 instructions sum pairs with an intermediate rounding.
  const double bound = 8 * std::sqrt(static_cast<double>(shape.in)) * kEps * 0.1 *
                       std::sqrt(static_cast<double>(shape.in));
  const Matrix start = Random(shape.tokens, shape.out, 5), bias = Random(1, shape.out, 6);
  for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
    Judge(
        [&](Device& device, MatrixView out) {
          auto weight = device.PrepareWeight(w.view(), type);
          return weight.ok() ? device.Linear(x.view(), {**weight, b}, out) : weight.status();
        },
        start, Uniform(start, bound + kEps * 4));
    Judge(
        [&](Device& device, MatrixView out) {
          auto weight = device.PrepareWeight(w.view(), type);
          return weight.ok() ? device.AddLinear(x.view(), {**weight, b}, out) : weight.status();
        },
        start, Uniform(start, bound + kEps * 8));
  }
  Judge(
      [&](Device& device, MatrixView out) {
        auto weight = device.PrepareWeight(w.view(), type);
        return weight.ok() ? device.SubtractLinear(x.view(), **weight, out) : weight.status();
      },
      start, Uniform(start, bound + kEps * 4));
}

// Columns set in two overlapping parts, the second over the first; the others stay zero.
TEST_P(Products, LinearOfAPreparedInputAgrees) {
  const auto [shape, type] = GetParam();
  const int64_t first = shape.in / 4, half = shape.in / 2;
  const Matrix w = Random(shape.out, shape.in, 2, 0.1f), bias = Random(1, shape.out, 6);
  const Matrix one = Random(shape.tokens, half, 1), two = Random(shape.tokens, half, 3);
  const double root = std::sqrt(static_cast<double>(shape.in));
  const double bound = 8 * root * kEps * 0.1 * root + 4 * kEps;
  const Matrix start = Zeros(shape.tokens, shape.out);
  const auto product = [&](Device& device, MatrixView out) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(auto weight, device.PrepareWeight(w.view(), type));
    LWQ_ASSIGN_OR_RETURN(auto input, device.NewInput(shape.tokens, shape.in, type));
    LWQ_RETURN_IF_ERROR(device.SetColumns(one.view(), first, *input));
    LWQ_RETURN_IF_ERROR(device.SetColumns(two.view(), half, *input));
    return device.Linear(*input, {*weight, bias.data()}, out);
  };
  Judge(product, start, Uniform(start, bound));
  // The same sums as of the matrix itself.
  Matrix x = Zeros(shape.tokens, shape.in);
  for (int64_t r = 0; r < shape.tokens; ++r) {
    std::copy_n(one.Row(r), half, x.Row(r) + first);
    std::copy_n(two.Row(r), half, x.Row(r) + half);
  }
  auto device = Make("cpu");
  Matrix prepared = Zeros(shape.tokens, shape.out), plain = Zeros(shape.tokens, shape.out);
  ASSERT_OK(product(*device, prepared.view()));
  LWQ_ASSERT_OK_AND_ASSIGN(auto weight, device->PrepareWeight(w.view(), type));
  ASSERT_OK(device->Linear(x.view(), {*weight, bias.data()}, plain.view()));
  EXPECT_TRUE(std::equal(plain.data(), plain.data() + plain.size(), prepared.data()));
}

// Large inputs have parts that are not multiplied where all their columns are zero.
TEST_P(Products, APreparedInputIsZeroBeforeItsFirstColumn) {
  const auto [shape, type] = GetParam();
  const Matrix w = Random(shape.out, shape.in, 2, 0.1f);
  const double root = std::sqrt(static_cast<double>(shape.in));
  const double bound = 8 * root * kEps * 0.1 * root + 4 * kEps;
  const Matrix start = Random(shape.tokens, shape.out, 5);
  for (const int64_t first : {shape.in / 2, shape.in * 3 / 4, shape.in}) {
    const Matrix last = Random(shape.tokens, shape.in - first, 1);
    Judge(
        [&](Device& device, MatrixView out) -> absl::Status {
          LWQ_ASSIGN_OR_RETURN(auto weight, device.PrepareWeight(w.view(), type));
          LWQ_ASSIGN_OR_RETURN(auto input, device.NewInput(shape.tokens, shape.in, type));
          LWQ_RETURN_IF_ERROR(device.SetColumns(last.view(), first, *input));
          return device.SubtractLinear(*input, *weight, out);
        },
        start, Uniform(start, bound));
  }
}

TEST_P(Products, TransposedWeightsAreTheSame) {
  const auto [shape, type] = GetParam();
  const Matrix x = Random(shape.tokens, shape.in, 1), b = Random(shape.in, shape.out + 5, 2);
  Matrix w(shape.out, shape.in);
  for (int64_t n = 0; n < shape.out; ++n) {
    for (int64_t k = 0; k < shape.in; ++k) w.Row(n)[k] = b.Row(k)[n + 5];
  }
  for (const char* name : {"cpu", "reference"}) {
    auto device = Make(name);
    Matrix got = Zeros(shape.tokens, shape.out), want = Zeros(shape.tokens, shape.out);
    LWQ_ASSERT_OK_AND_ASSIGN(auto one,
                             device->PrepareTransposed(b.view().Cols(5, shape.out), type));
    LWQ_ASSERT_OK_AND_ASSIGN(auto other, device->PrepareWeight(w.view(), type));
    ASSERT_OK(device->Linear(x.view(), *one, got.view()));
    ASSERT_OK(device->Linear(x.view(), *other, want.view()));
    EXPECT_TRUE(std::equal(want.data(), want.data() + want.size(), got.data())) << name;
  }
}

TEST(DeviceOps, ProductsOfNoRowsAreFine) {
  for (const char* name : {"cpu", "reference"}) {
    for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      auto device = Make(name);
      Matrix w = Zeros(8, 16), x = Zeros(0, 16), y = Zeros(0, 8);
      LWQ_ASSERT_OK_AND_ASSIGN(auto weight, device->PrepareWeight(w.view(), type));
      LWQ_ASSERT_OK_AND_ASSIGN(auto input, device->NewInput(0, 16, type));
      EXPECT_OK(device->Linear(x.view(), *weight, y.view())) << name;
      EXPECT_OK(device->SubtractLinear(x.view(), *weight, y.view())) << name;
      EXPECT_OK(device->Linear(*input, *weight, y.view())) << name;
      EXPECT_OK(device->SubtractLinear(*input, *weight, y.view())) << name;
    }
  }
}

TEST(DeviceOps, PreparedInputsMustFit) {
  for (const char* name : {"cpu", "reference"}) {
    auto device = Make(name);
    Matrix w = Zeros(8, 16), y = Zeros(3, 8);
    LWQ_ASSERT_OK_AND_ASSIGN(auto input, device->NewInput(3, 12, ComputeType::kF32));
    LWQ_ASSERT_OK_AND_ASSIGN(auto weight, device->PrepareWeight(w.view(), ComputeType::kF32));
    EXPECT_EQ(device->SetColumns(w.view().Rows(0, 3), 0, *input).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(device->SetColumns(w.view().Rows(0, 2).Cols(0, 4), 0, *input).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(device->Linear(*input, *weight, y.view()).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(device->SubtractLinear(*input, *weight, y.view()).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(Products, GatedLinearAgrees) {
  const auto [shape, type] = GetParam();
  const Matrix x = Random(shape.tokens, shape.in, 1), gate = Random(shape.out, shape.in, 2, 0.1f),
               up = Random(shape.out, shape.in, 3, 0.1f), bias = Random(2, shape.out, 4);
  const Matrix start = Zeros(shape.tokens, shape.out);
  // Both factors err as Linear's result does and are below `largest`.
  const double root = std::sqrt(static_cast<double>(shape.in));
  const double largest = 1 + 0.1 * 4 * root;
  const double bound = 3 * largest * (8 * root * kEps * 0.1 * root + 8 * kEps * largest);
  for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
    Judge(
        [&](Device& device, MatrixView out) -> absl::Status {
          LWQ_ASSIGN_OR_RETURN(auto g, device.PrepareWeight(gate.view(), type));
          LWQ_ASSIGN_OR_RETURN(auto u, device.PrepareWeight(up.view(), type));
          return device.GatedLinear(x.view(), {*g, b}, {*u, b == nullptr ? b : b + shape.out}, out);
        },
        start, Uniform(start, bound));
  }
}

TEST_P(Products, GramAgreesBelowTheDiagonal) {
  const auto [shape, type] = GetParam();
  const Matrix x = Random(shape.tokens, shape.in, 3);
  const Matrix start = Random(shape.in, shape.in, 4);
  const double bound = 8 * kEps * (1 + static_cast<double>(shape.tokens));
  const Matrix start_low = Zeros(shape.in, shape.in);
  Judge(
      [&](Device& device, MatrixView out) {
        Matrix gram(start.rows(), start.cols());
        std::copy_n(start.data(), start.size(), gram.data());
        absl::Status status = device.AccumulateGram(x.view(), type, gram.view());
        for (int64_t i = 0; i < gram.rows(); ++i) std::copy_n(gram.Row(i), i + 1, out.Row(i));
        return status;
      },
      start_low, Uniform(start, bound));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Products,
    ::testing::Combine(::testing::Values(ProductCase{1, 32, 48}, ProductCase{7, 96, 33},
                                         ProductCase{256, 64, 512}, ProductCase{300, 160, 515},
                                         ProductCase{257, 520, 1025},
                                         // Enough for the CPU's largest tiles, and a rest.
                                         ProductCase{1030, 40, 2080}, ProductCase{30, 1200, 20}),
                       ::testing::Values(ComputeType::kF32, ComputeType::kBF16)));

TEST(DeviceOps, LinearReadsAndWritesStridedMatrices) {
  const Matrix x = Random(70, 100, 1), w = Random(40, 64, 2);
  const Matrix start = Zeros(70, 90);
  Judge(
      [&](Device& device, MatrixView out) {
        auto weight = device.PrepareWeight(w.view(), ComputeType::kF32);
        if (!weight.ok()) return weight.status();
        return device.Linear(x.view().Cols(9, 64), **weight, out.Cols(11, 40));
      },
      start, Uniform(start, 8 * 64 * kEps));
}

TEST(DeviceOps, BF16RoundsTheInputs) {
  auto device = Make("cpu");
  Matrix x = Zeros(1, 32), w = Zeros(32, 32), y = Zeros(1, 32);
  x.data()[0] = 1 + 1.0f / 512;  // not a BF16 number: rounds to 1
  w.data()[0] = 1;
  LWQ_ASSERT_OK_AND_ASSIGN(auto weight, device->PrepareWeight(w.view(), ComputeType::kBF16));
  ASSERT_OK(device->Linear(x.view(), *weight, y.view()));
  EXPECT_EQ(y.data()[0], 1);
  EXPECT_LT(y.data()[0] * kEpsBF16, 0.01);
}

TEST(DeviceOps, SubtractProductAgrees) {
  for (auto [m, n, k] : {std::tuple{1, 40, 3}, {259, 517, 128}, {64, 64, 64}, {1030, 2080, 16}}) {
    const Matrix a = Random(m, k, 1), b = Random(k, n + 5, 2), start = Random(m, n, 3);
    Judge(
        [&, n = n](Device& device, MatrixView out) {
          return device.SubtractProduct(a.view(), b.view().Cols(5, n), out);
        },
        start, Uniform(start, 8 * kEps * (1 + k)));
  }
}

TEST(DeviceOps, GatherColumnsAgrees) {
  const Matrix x = Random(70, 30, 1), start = Zeros(70, 4);
  const int32_t columns[] = {29, 0, 7, 7};
  Judge(
      [&](Device& device, MatrixView out) { return device.GatherColumns(x.view(), columns, out); },
      start, Uniform(start, 0));
  EXPECT_FALSE(Make("cpu")->GatherColumns(x.view().Cols(0, 29), columns, Zeros(70, 4).view()).ok());
}

TEST(DeviceOps, RmsNormAgrees) {
  for (int64_t cols : {1, 15, 256, 1001}) {
    const Matrix x = Random(5, cols, 1, 30), weight = Random(1, cols, 2);
    const Matrix start = Zeros(5, cols);
    const double bound =
        (4 + std::sqrt(static_cast<double>(cols))) * kEps * std::sqrt(static_cast<double>(cols));
    Judge([&](Device& device,
              MatrixView out) { return device.RmsNorm(x.view(), weight.data(), 1e-5f, out); },
          start, Uniform(start, bound));
  }
}

TEST(DeviceOps, NormOfZerosIsZeroAndCosineOfZerosIsZero) {
  for (const char* name : {"cpu", "reference"}) {
    auto device = Make(name);
    Matrix x = Zeros(2, 40), weight = Random(1, 40, 1), out = Random(2, 40, 2);
    ASSERT_OK(device->RmsNorm(x.view(), weight.data(), 1e-6f, out.view()));
    for (int64_t i = 0; i < out.size(); ++i) EXPECT_EQ(out.data()[i], 0) << name;
    double cosine[2] = {7, 7};
    const Matrix y = Random(2, 40, 3);
    ASSERT_OK(device->RowCosine(x.view(), y.view(), absl::MakeSpan(cosine)));
    EXPECT_EQ(cosine[0], 0) << name;
  }
}

TEST(DeviceOps, RopeAgrees) {
  for (int head_dim : {2, 12, 64}) {
    std::vector<float> frequency;
    for (int i = 0; i < head_dim / 2; ++i) {
      frequency.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(head_dim)));
    }
    const std::vector<int32_t> positions = {0, 1, 17, 2047, 100000};
    const Matrix start = Random(5, 3 * head_dim, 1);
    // Cosine and sine of an angle that is exact; two products and a sum of values below 1.1.
    Judge(
        [&](Device& device, MatrixView out) {
          return device.Rope(out, head_dim, positions, {frequency, 1.1f});
        },
        start, Uniform(start, 10 * kEps));
  }
}

struct AttentionCase {
  AttentionShape shape;
  std::vector<Segment> segments;
  int64_t rows;
};

TEST(DeviceOps, AttentionAgrees) {
  const AttentionCase cases[] = {
      {{.num_heads = 1, .num_kv_heads = 1, .head_dim = 8, .scale = 0.35f}, {{0, 1}}, 1},
      {{.num_heads = 4, .num_kv_heads = 2, .head_dim = 12, .scale = 0.3f},
       {{0, 33}, {33, 64}, {97, 3}},
       100},
      // A context, two choices that continue it, one that continues a choice; a row left over.
      {{.num_heads = 2, .num_kv_heads = 1, .head_dim = 64, .scale = 0.125f},
       {{0, 70, -1, 0}, {70, 5, 0, 70}, {75, 40, 0, 70}, {115, 9, 2, 110}},
       125},
      {{.num_heads = 2, .num_kv_heads = 2, .head_dim = 20, .scale = 0.2f, .sliding_window = 37},
       {{0, 150}},
       150},
      {{.num_heads = 2, .num_kv_heads = 2, .head_dim = 16, .scale = 2.0f, .logit_softcap = 5},
       {{0, 50}, {50, 20, 0, 50}},
       70}};
  for (const AttentionCase& c : cases) {
    const int64_t q_cols = c.shape.num_heads * c.shape.head_dim;
    const int64_t k_cols = c.shape.num_kv_heads * c.shape.head_dim;
    const Matrix q = Random(c.rows, q_cols, 1, 2), k = Random(c.rows, k_cols, 2, 2);
    const Matrix v = Random(c.rows, k_cols, 3);
    const Matrix start = Random(c.rows, q_cols, 4);
    // Scores below scale * 4 * head_dim err by some eps of that, which the exponential turns into a
    // relative error of the weights; a weighted mean of values below 1 follows.
    const double score = c.shape.scale * 4.0 * c.shape.head_dim;
    Judge(
        [&](Device& device, MatrixView out) {
          return device.Attention(q.view(), k.view(), v.view(), c.segments, c.shape, out);
        },
        start, Uniform(start, 8 * kEps * (4 + score)));
  }
}

TEST(DeviceOps, SubtractAgrees) {
  const Matrix x = Random(18, 77, 1, 20), start = Random(18, 77, 4);
  Judge([&](Device& device, MatrixView out) { return device.Subtract(x.view(), out, out); }, start,
        Uniform(start, kEps * 42));
  Judge([&](Device& device, MatrixView out) { return device.Subtract(out, x.view(), out); }, start,
        Uniform(start, kEps * 42));
}

TEST(DeviceOps, AddAgrees) {
  const Matrix x = Random(18, 77, 1, 20), start = Random(18, 77, 4);
  Judge([&](Device& device, MatrixView out) { return device.Add(x.view(), out); }, start,
        Uniform(start, kEps * 42));
}

TEST(DeviceOps, CopyKeepsStridesApart) {
  const Matrix x = Random(70, 30, 1), start = Random(70, 40, 2);
  Judge([&](Device& device,
            MatrixView out) { return device.Copy(x.view().Cols(3, 20), out.Cols(5, 20)); },
        start, Uniform(start, 0));
}

TEST(DeviceOps, LargeGatesStayFinite) {
  for (const char* name : {"cpu", "reference"}) {
    auto device = Make(name);
    Matrix x = Zeros(1, 1), gate = Zeros(4, 1), up = Zeros(4, 1), out = Zeros(1, 4);
    x.data()[0] = 1;
    const float gates[] = {-1e4f, -90, 90, 1e4f};
    std::copy_n(gates, 4, gate.data());
    std::fill_n(up.data(), 4, 1.0f);
    LWQ_ASSERT_OK_AND_ASSIGN(auto g, device->PrepareWeight(gate.view(), ComputeType::kF32));
    LWQ_ASSERT_OK_AND_ASSIGN(auto u, device->PrepareWeight(up.view(), ComputeType::kF32));
    ASSERT_OK(device->GatedLinear(x.view(), *g, *u, out.view()));
    EXPECT_NEAR(out.data()[0], 0, 1e-30) << name;
    EXPECT_NEAR(out.data()[1], 0, 1e-30) << name;
    EXPECT_EQ(out.data()[2], 90) << name;
    EXPECT_EQ(out.data()[3], 1e4f) << name;
  }
}

TEST(DeviceOps, LogSoftmaxAgrees) {
  for (int64_t cols : {1, 31, 4096, 5003}) {
    const Matrix start = Random(3, cols, 1, 20);
    // The row's values after are below 40 + log(cols); the sum's relative error adds to all.
    Judge([&](Device& device, MatrixView out) { return device.LogSoftmax(out); }, start,
          Uniform(start, kEps * (2 * (40 + std::log(static_cast<double>(cols))) + 32)));
  }
}

TEST(DeviceOps, DivergenceAndCosineAgree) {
  auto cpu = Make("cpu"), reference = Make("reference");
  for (int64_t cols : {1, 37, 4096}) {
    Matrix p = Random(20, cols, 1, 5), q = Random(20, cols, 2, 5);
    ASSERT_OK(reference->LogSoftmax(p.view()));
    ASSERT_OK(reference->LogSoftmax(q.view()));
    std::vector<double> expected(20), found(20);
    ASSERT_OK(reference->KlDivergence(p.view(), q.view(), absl::MakeSpan(expected)));
    ASSERT_OK(cpu->KlDivergence(p.view(), q.view(), absl::MakeSpan(found)));
    for (size_t r = 0; r < 20; ++r) {
      // exp errs by a few eps of each term; terms are p |p - q| with |p - q| below 20.
      EXPECT_NEAR(found[r], expected[r], 4 * kEps * 20);
      EXPECT_GE(found[r], -4 * kEps * 20);
    }
    ASSERT_OK(reference->RowCosine(p.view(), q.view(), absl::MakeSpan(expected)));
    ASSERT_OK(cpu->RowCosine(p.view(), q.view(), absl::MakeSpan(found)));
    // Both in F64; only the order of the sums differs.
    for (size_t r = 0; r < 20; ++r) EXPECT_NEAR(found[r], expected[r], 1e-13);
  }
}

TEST(DeviceOps, ShapesThatDoNotFitAreRefused) {
  for (const char* name : {"cpu", "reference"}) {
    auto device = Make(name);
    Matrix x = Zeros(2, 8), w = Zeros(4, 6), y = Zeros(2, 4);
    LWQ_ASSERT_OK_AND_ASSIGN(auto weight, device->PrepareWeight(w.view(), ComputeType::kF32));
    EXPECT_THAT(
        device->Linear(x.view(), *weight, y.view()),
        testing::StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("[2, 8]")));
    const Segment wrong[] = {{0, 3}};
    EXPECT_FALSE(device
                     ->Attention(x.view(), x.view(), x.view(), wrong,
                                 {.num_heads = 2, .num_kv_heads = 2, .head_dim = 4, .scale = 1},
                                 x.view())
                     .ok());
    EXPECT_FALSE(device->NewMatrix(int64_t{1} << 40, int64_t{1} << 40).ok());
  }
}

}  // namespace
}  // namespace lwq
