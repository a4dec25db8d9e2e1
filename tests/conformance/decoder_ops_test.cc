// The operations of a decoder and of the evaluation on every device against the reference. Bounds
// are derived where they are stated (product_ops_test.cc says how).
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

class DecoderOps : public DeviceTest {
 protected:
  ::testing::AssertionResult Agrees(const Operation& operation, const Matrix& start,
                                    double bound) const {
    return Judge(*GetParam(), operation, start).Within(bound);
  }
};

TEST_P(DecoderOps, RmsNormAgrees) {
  for (const int64_t cols : {1, 15, 256, 1001}) {
    const Matrix x = Random(5, cols, 1, 30), weight = Random(1, cols, 2), start = Zeros(5, cols);
    const double root = std::sqrt(static_cast<double>(cols));
    EXPECT_TRUE(Agrees(
        [&](Device& device, DeviceView<float> out) {
          return device.RmsNorm(OnDevice(&device, x.view())->view(),
                                OnDevice(&device, weight.view())->span(), 1e-5f, out);
        },
        start, (4 + root) * kEps * root));
  }
}

TEST_P(DecoderOps, NormOfZerosIsZeroAndCosineOfZerosIsZero) {
  const auto x = OnDevice(device_.get(), Zeros(2, 40).view());
  const auto y = OnDevice(device_.get(), Random(2, 40, 3).view());
  const auto weight = OnDevice(device_.get(), Random(1, 40, 1).view());
  const auto out = OnDevice(device_.get(), Random(2, 40, 2).view());
  ASSERT_OK(device_->RmsNorm(x->view(), weight->span(), 1e-6f, out->view()));
  EXPECT_THAT(ElementsOf(*device_, out->view()), ::testing::Each(0.0f));
  const auto cosine = VectorOn<double>(*device_, {7, 7});
  ASSERT_OK(device_->RowCosine(x->view(), y->view(), cosine->span()));
  EXPECT_THAT(ElementsOf(*device_, cosine->span()), ::testing::Each(0.0));
  EXPECT_FALSE(device_->RmsNorm(x->view(), weight->span().Part(0, 39), 1e-6f, out->view()).ok());
  EXPECT_FALSE(device_->RowCosine(x->view(), y->view(), cosine->span().Part(0, 1)).ok());
}

TEST_P(DecoderOps, RopeAgrees) {
  for (const int head_dim : {2, 12, 64}) {
    std::vector<float> frequency;
    for (int i = 0; i < head_dim / 2; ++i) {
      frequency.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(head_dim)));
    }
    const std::vector<int32_t> positions = {0, 1, 17, 2047, 9999};
    const Matrix start = Random(5, 3 * head_dim, 1);
    // Cosine and sine of an angle that is exact; two products and a sum of values below 1.1.
    EXPECT_TRUE(Agrees(
        [&](Device& device, DeviceView<float> out) -> absl::Status {
          LWQ_ASSIGN_OR_RETURN(const auto batch, device.NewBatch({}, positions));
          LWQ_ASSIGN_OR_RETURN(const auto table, device.NewRopeTable({frequency, 1.1f}, 10000));
          return device.Rope(*batch, *table, out);
        },
        start, 10 * kEps));
  }
}

// Of heads of 20 values 12 are rotated, and the heads lie inside wider rows.
TEST_P(DecoderOps, RopeMayRotateAPartOfEachHead) {
  constexpr int kHeadDim = 20;
  const std::vector<float> frequency = {1, 0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f};
  const std::vector<int32_t> positions = {3, 0, 511};
  const Matrix start = Random(3, 7 + 2 * kHeadDim, 1);
  const auto rotate = [&](Device& device, DeviceView<float> out) -> absl::Status {
    LWQ_ASSIGN_OR_RETURN(const auto batch, device.NewBatch({}, positions));
    LWQ_ASSIGN_OR_RETURN(const auto table, device.NewRopeTable({frequency, 1.1f, kHeadDim}, 512));
    EXPECT_EQ(table->head_dim(), kHeadDim);
    return device.Rope(*batch, *table, out.Cols(7, 2 * kHeadDim));
  };
  EXPECT_TRUE(Agrees(rotate, start, 10 * kEps));
  const auto out = OnDevice(device_.get(), start.view());
  ASSERT_OK(rotate(*device_, out->view()));
  const Matrix found = OnHost(*device_, out->view());
  for (const int64_t col : {int64_t{6}, int64_t{7 + 12}, int64_t{7 + 19}, int64_t{7 + 20 + 12}}) {
    EXPECT_EQ(found.Row(0)[col], start.Row(0)[col]) << col;
  }
  EXPECT_NE(found.Row(0)[7], start.Row(0)[7]);
  EXPECT_FALSE(device_->NewRopeTable({frequency, 1, 10}, 512).ok()) << "more than a head";
}

TEST_P(DecoderOps, RopeRefusesPositionsOutsideItsTable) {
  const float frequency[] = {1};
  LWQ_ASSERT_OK_AND_ASSIGN(const auto table, device_->NewRopeTable({frequency, 1}, 8));
  EXPECT_EQ(table->head_dim(), 2);
  const auto x = OnDevice(device_.get(), Random(2, 4, 1).view());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto inside, device_->NewBatch({}, {{7, 0}}));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto outside, device_->NewBatch({}, {{0, 8}}));
  EXPECT_OK(device_->Rope(*inside, *table, x->view()));
  EXPECT_FALSE(device_->Rope(*outside, *table, x->view()).ok());
  EXPECT_FALSE(device_->Rope(*inside, *table, x->view().Cols(0, 3)).ok());
  EXPECT_FALSE(device_->Rope(*inside, *table, x->Rows(0, 1)).ok());
  EXPECT_FALSE(device_->NewBatch({}, {{-1}}).ok());
}

struct AttentionCase {
  AttentionShape shape;
  std::vector<Segment> segments;
  int64_t rows;
};

TEST_P(DecoderOps, AttentionAgrees) {
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
      // A window that reaches back into the context, past the choice's own tokens.
      {{.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.3f, .sliding_window = 9},
       {{0, 40}, {40, 5, 0, 40}, {45, 30, 0, 40}},
       75},
      {{.num_heads = 2, .num_kv_heads = 2, .head_dim = 16, .scale = 2.0f, .logit_softcap = 5},
       {{0, 50}, {50, 20, 0, 50}},
       70},
      // The longest heads of a model family, and one that fills no vector or tile.
      {{.num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .scale = 0.0625f}, {{0, 40}}, 40},
      {{.num_heads = 1, .num_kv_heads = 1, .head_dim = 97, .scale = 0.1f}, {{0, 40}}, 40}};
  for (const AttentionCase& c : cases) {
    const int64_t q_cols = c.shape.num_heads * c.shape.head_dim;
    const int64_t k_cols = c.shape.num_kv_heads * c.shape.head_dim;
    const Matrix q = Random(c.rows, q_cols, 1, 2), k = Random(c.rows, k_cols, 2, 2);
    const Matrix v = Random(c.rows, k_cols, 3), start = Random(c.rows, q_cols, 4);
    // Scores below scale * 4 * head_dim err by some eps of that, which the exponential turns into a
    // relative error of the weights; a weighted mean of values below 1 follows.
    const double score = c.shape.scale * 4.0 * c.shape.head_dim;
    EXPECT_TRUE(Agrees(
        [&](Device& device, DeviceView<float> out) -> absl::Status {
          const std::vector<int32_t> positions(static_cast<size_t>(c.rows));
          LWQ_ASSIGN_OR_RETURN(const auto batch, device.NewBatch(c.segments, positions));
          return device.Attention(OnDevice(&device, q.view())->view(),
                                  OnDevice(&device, k.view())->view(),
                                  OnDevice(&device, v.view())->view(), *batch, c.shape, out);
        },
        start, 8 * kEps * (4 + score)));
  }
}

// What a long sequence that is cut does: the queries of its last part see all of it, and only they
// are answered.
TEST_P(DecoderOps, AttentionAnswersTheLastRowsAlone) {
  for (const int window : {0, 37}) {
    const AttentionShape shape{
        .num_heads = 4, .num_kv_heads = 2, .head_dim = 12, .scale = 0.3f, .sliding_window = window};
    const Matrix q = Random(100, 48, 1, 2), k = Random(100, 24, 2, 2), v = Random(100, 24, 3);
    const std::vector<int32_t> positions(100);
    const auto attend = [&](const std::vector<Segment>& segments, int64_t rows) {
      const auto batch = device_->NewBatch(segments, positions);
      const auto out = OnDevice(device_.get(), Zeros(rows, 48).view());
      EXPECT_OK(device_->Attention(OnDevice(device_.get(), q.view().Rows(100 - rows, rows))->view(),
                                   OnDevice(device_.get(), k.view())->view(),
                                   OnDevice(device_.get(), v.view())->view(), **batch, shape,
                                   out->view()));
      return OnHost(*device_, out->view());
    };
    const Matrix whole = attend({{0, 100}}, 100);
    const Matrix last = attend({{0, 32}, {32, 32, 0, 32}, {64, 36, 1, 64}}, 36);
    double worst = 0;
    for (int64_t r = 0; r < 36; ++r) {
      for (int64_t c = 0; c < 48; ++c) {
        worst = std::max(worst, std::abs(double{last.Row(r)[c]} - whole.Row(64 + r)[c]));
      }
    }
    EXPECT_LE(worst, 16 * kEps * (4 + shape.scale * 4.0 * 12));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const auto one, device_->NewBatch({{{0, 2}}}, {{0, 1}}));
  const auto x = OnDevice(device_.get(), Random(2, 8, 1).view());
  const AttentionShape shape{.num_heads = 2, .num_kv_heads = 2, .head_dim = 4, .scale = 1};
  EXPECT_FALSE(
      device_->Attention(x->Rows(0, 1), x->view(), x->view(), *one, shape, x->Rows(1, 1)).ok())
      << "a segment on both sides";
}

// Queries, keys and values side by side, as one linear puts them out.
TEST_P(DecoderOps, AttentionReadsPartsOfWiderRows) {
  const AttentionShape shape{.num_heads = 4, .num_kv_heads = 2, .head_dim = 12, .scale = 0.3f};
  const Matrix all = Random(50, 48 + 24 + 24, 1, 2), start = Random(50, 48, 2);
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) -> absl::Status {
        const std::vector<int32_t> positions(50);
        LWQ_ASSIGN_OR_RETURN(const auto batch, device.NewBatch({{{0, 30}, {30, 20}}}, positions));
        const auto in = OnDevice(&device, all.view());
        return device.Attention(in->view().Cols(0, 48), in->view().Cols(48, 24),
                                in->view().Cols(72, 24), *batch, shape, out);
      },
      start, 8 * kEps * (4 + shape.scale * 4.0 * 12)));
}

TEST_P(DecoderOps, AttentionRefusesWhatDoesNotFit) {
  const AttentionShape shape{.num_heads = 2, .num_kv_heads = 2, .head_dim = 4, .scale = 1};
  const auto x = OnDevice(device_.get(), Random(2, 8, 1).view());
  EXPECT_FALSE(device_->NewBatch({{{0, 3}}}, {{0, 1}}).ok()) << "three tokens in two rows";
  EXPECT_FALSE(device_->NewBatch({{{0, 1, 0}}}, {{0, 1}}).ok()) << "its own parent";
  LWQ_ASSERT_OK_AND_ASSIGN(const auto one, device_->NewBatch({{{0, 1}}}, {{0}}));
  EXPECT_FALSE(device_->Attention(x->view(), x->view(), x->view(), *one, shape, x->view()).ok());
}

// Gates of both signs up to where the activation is the gate itself, or nothing.
TEST_P(DecoderOps, GateAgreesAlsoInPlace) {
  const Matrix up = Random(18, 77, 1, 3), start = Random(18, 2 * 77, 2, 20);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    // The exponential errs by some eps of its exponent, below 88 where it still counts.
    EXPECT_TRUE(Agrees(
        [&](Device& device, DeviceView<float> out) {
          const DeviceView<float> gate = out.Cols(0, 77);
          return device.Gate(gate, OnDevice(&device, up.view())->view(), activation, gate);
        },
        start, 40 * kEps * 60));
  }
  const auto x = OnDevice(device_.get(), start.view());
  EXPECT_FALSE(device_->Gate(x->view(), x->view().Cols(0, 77), Activation::kSilu, x->view()).ok());
}

TEST_P(DecoderOps, ActivationsAreThoseOfTorch) {
  Matrix gate(1, 4);
  const float gates[] = {-3, -0.5f, 1, 4};
  std::copy_n(gates, 4, gate.data());
  const std::pair<Activation, std::vector<float>> cases[] = {
      {Activation::kSilu, {-0.14227762f, -0.18877033f, 0.73105858f, 3.9280552f}},
      {Activation::kGeluTanh, {-0.0036373921f, -0.15428599f, 0.84119199f, 3.9999297f}}};
  const auto one = VectorOn<float>(*device_, {1, 1, 1, 1});
  for (const auto& [activation, expected] : cases) {
    const auto out = OnDevice(device_.get(), gate.view());
    ASSERT_OK(device_->Gate(out->view(), one->view(), activation, out->view()));
    const std::vector<float> found = ElementsOf(*device_, out->view());
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(found[i], expected[i], 1e-6) << i;
  }
}

TEST_P(DecoderOps, SoftCapAgrees) {
  const Matrix start = Random(5, 333, 1, 200);
  EXPECT_TRUE(Agrees([&](Device& device, DeviceView<float> out) { return device.SoftCap(30, out); },
                     start, 30 * 10 * kEps));
  const auto x = OnDevice(device_.get(), start.view());
  ASSERT_OK(device_->SoftCap(30, x->view()));
  for (const float value : ElementsOf(*device_, x->view())) EXPECT_LE(std::abs(value), 30);
  EXPECT_FALSE(device_->SoftCap(0, x->view()).ok());
}

// The rules are defined in F32, so the bound has room for the last multiplication alone; a number
// that fell to another step would be off by 1/256 of its row's largest, or 1/32 of itself.
TEST_P(DecoderOps, RoundedRowsAgree) {
  for (const ActivationRule rule : {ActivationRule::kInt8PerToken, ActivationRule::kFp8PerToken}) {
    for (const int64_t cols : {1, 15, 256, 1001}) {
      Matrix start = Random(7, cols, 1, 30);
      std::fill_n(start.Row(2), cols, 0.0f);
      for (int64_t c = 0; c < cols; ++c) start.Row(3)[c] *= 0x1p-12f * static_cast<float>(c % 9);
      start.Row(3)[0] = 5;
      EXPECT_TRUE(
          Agrees([&](Device& device, DeviceView<float> out) { return device.RoundRows(rule, out); },
                 start, 30 * 2 * kEps));
    }
  }
  const auto x = OnDevice(device_.get(), Random(1, 9, 1).view());
  const std::vector<float> before = ElementsOf(*device_, x->view());
  ASSERT_OK(device_->RoundRows(ActivationRule::kNone, x->view()));
  EXPECT_EQ(ElementsOf(*device_, x->view()), before);
}

// The largest magnitude is 4, so that one step of the integers is 4 / 127.5 (in F32 a little more,
// so that 4 is 127.49999 of them): worked out by hand.
// The values of E4M3 are torch's float8_e4m3fn of x / (4 / 448).
TEST_P(DecoderOps, RoundedRowsAreThoseOfCompressedTensors) {
  const std::vector<float> start = {4, -4, 1, 0.0157f, -0.0156f, 0.3f, 0, 1e-4f};
  const std::pair<ActivationRule, std::vector<float>> cases[] = {
      {ActivationRule::kInt8PerToken, {127, -127, 32, 1, 0, 10, 0, 0}},
      {ActivationRule::kFp8PerToken, {448, -448, 112, 1.75f, -1.75f, 32, 0, 0.01171875f}}};
  for (const auto& [rule, steps] : cases) {
    const auto x = VectorOn<float>(*device_, start);
    ASSERT_OK(device_->RoundRows(rule, x->view()));
    const std::vector<float> found = ElementsOf(*device_, x->view());
    const float scale = 4 / (rule == ActivationRule::kInt8PerToken ? 127.5f : 448.0f);
    for (size_t i = 0; i < steps.size(); ++i) EXPECT_FLOAT_EQ(found[i], steps[i] * scale) << i;
  }
}

TEST_P(DecoderOps, SumsAndDifferencesAgree) {
  const Matrix x = Random(18, 77, 1, 20), start = Random(18, 77, 4);
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) {
        return device.Subtract(OnDevice(&device, x.view())->view(), out, out);
      },
      start, kEps * 42));
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) {
        return device.Subtract(out, OnDevice(&device, x.view())->view(), out);
      },
      start, kEps * 42));
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) {
        return device.Add(OnDevice(&device, x.view())->view(), out);
      },
      start, kEps * 42));
}

TEST_P(DecoderOps, LogSoftmaxAgrees) {
  for (const int64_t cols : {2, 31, 4096, 5003}) {
    const Matrix start = Random(3, cols, 1, 20);
    // The row's values after are below 40 + log(cols); the sum's relative error adds to all.
    EXPECT_TRUE(
        Agrees([&](Device& device, DeviceView<float> out) { return device.LogSoftmax(out); }, start,
               kEps * (2 * (40 + std::log(static_cast<double>(cols))) + 32)));
  }
  const auto one = OnDevice(device_.get(), Random(3, 1, 1, 20).view());
  ASSERT_OK(device_->LogSoftmax(one->view()));
  EXPECT_THAT(ElementsOf(*device_, one->view()), ::testing::Each(0.0f));
}

TEST_P(DecoderOps, DivergenceAndCosineAgree) {
  ReferenceDevice reference;
  const auto rows_of = [](Device& device, const Matrix& p, const Matrix& q, auto operation) {
    const auto out = VectorOn<double>(device, std::vector<double>(20));
    EXPECT_OK((device.*operation)(OnDevice(&device, p.view())->view(),
                                  OnDevice(&device, q.view())->view(), out->span()));
    return ElementsOf(device, out->span());
  };
  for (const int64_t cols : {1, 37, 4096}) {
    const auto log_probabilities = [&](uint64_t seed) {
      const auto x = OnDevice(&reference, Random(20, cols, seed, 5).view());
      EXPECT_OK(reference.LogSoftmax(x->view()));
      return OnHost(reference, x->view());
    };
    const Matrix p = log_probabilities(1), q = log_probabilities(2);
    std::vector<double> found = rows_of(*device_, p, q, &Device::KlDivergence);
    std::vector<double> expected = rows_of(reference, p, q, &Device::KlDivergence);
    for (size_t r = 0; r < 20; ++r) {
      // exp errs by a few eps of each term; terms are p |p - q| with |p - q| below 20.
      EXPECT_NEAR(found[r], expected[r], 4 * kEps * 20);
      EXPECT_GE(found[r], -4 * kEps * 20);
    }
    found = rows_of(*device_, p, q, &Device::RowCosine);
    expected = rows_of(reference, p, q, &Device::RowCosine);
    // Both in F64; only the order of the sums differs.
    for (size_t r = 0; r < 20; ++r) EXPECT_NEAR(found[r], expected[r], 1e-13);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DecoderOps, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
