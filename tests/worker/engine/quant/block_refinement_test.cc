// Moves inside one block against their definition: the error in double before and after, a block
// whose best parts are known, and neighbours of what the moves end in.
#include "worker/engine/quant/block_refinement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/worker/engine/quant/quant_problem.h"

namespace lwq {
namespace {

using ::lwq::testing::CorrelatedInputs;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::GaussianMatrix;

constexpr int64_t kCols = 256;

// One row of 256 columns, rounded to nearest, of which the block at `first` is moved.
class Row {
 public:
  Row(const char* type, int64_t first, uint64_t seed)
      : type_(*FindGgufType(type)), first_(first), weight_(GaussianMatrix(1, kCols, seed, 0.02f)) {
    h_ = DampedHessian(CorrelatedInputs(4 * kCols, kCols, seed + 1).view(), 0.01);
    h32_ = Matrix(kCols, kCols);
    for (int64_t i = 0; i < h32_.size(); ++i) h32_.data()[i] = static_cast<float>(h_[i]);
    rest_ = GaussianMatrix(1, kCols, seed + 2, 0.002f);
    BlockFitter(type_, GgufFit::kSearch)
        .Fit({weight_.Row(0) + first, static_cast<size_t>(type_.block_size)}, {}, &block_);
  }
  void SetWeights(const GgufBlock& block) {
    for (int i = 0; i < type_.block_size; ++i) {
      weight_.Row(0)[first_ + i] = StoredValue(type_, block, i);
    }
    std::memset(rest_.data(), 0, sizeof(float) * kCols);
  }
  // w - q: of the block as it is, elsewhere what other blocks leave.
  std::vector<double> Errors(const GgufBlock& block) const {
    std::vector<double> e(rest_.data(), rest_.data() + kCols);
    for (int i = 0; i < type_.block_size; ++i) {
      e[first_ + i] = double{weight_.Row(0)[first_ + i]} - StoredValue(type_, block, i);
    }
    return e;
  }
  std::vector<double> Residual(const GgufBlock& block) const {
    const std::vector<double> e = Errors(block);
    std::vector<double> out(kCols, 0.0);
    for (int64_t i = 0; i < kCols; ++i) {
      for (int64_t k = 0; k < kCols; ++k) out[k] += e[i] * h_[i * kCols + k];
    }
    return out;
  }
  double Error(const GgufBlock& block) const {
    const std::vector<double> e = Errors(block), r = Residual(block);
    double sum = 0;
    for (int64_t k = 0; k < kCols; ++k) sum += e[k] * r[k];
    return sum;
  }
  // Runs `moves` of a BlockRefinement on the block.
  template <typename Moves>
  double Move(const Moves& moves) {
    const std::vector<double> exact = Residual(block_);
    residual_.assign(exact.begin(), exact.end());
    BlockRefinement refinement(type_, h32_.view(), first_, residual_.data(), &block_);
    return moves(refinement);
  }

  const GgufTypeDef& type_;
  const int64_t first_;
  Matrix weight_, rest_, h32_;
  std::vector<double> h_;
  std::vector<float> residual_;  // as the moves left it
  GgufBlock block_;
};

// A block at the beginning, and small ones in the middle.
struct Case {
  const char* type;
  int64_t first;
};
constexpr Case kCases[] = {{"Q2_K", 0},   {"Q3_K", 0},  {"Q4_K", 0},   {"Q5_K", 0},
                           {"Q6_K", 0},   {"Q4_0", 96}, {"Q4_1", 32},  {"Q5_0", 224},
                           {"IQ4_NL", 0}, {"Q8_0", 64}, {"IQ4_XS", 0}, {"Q5_1", 160}};
// Types with codebooks, which have no single codes (tests/worker/engine/gguf/codebook_test.cc).
constexpr Case kCellCases[] = {
    {"IQ2_XXS", 0}, {"IQ2_XS", 0}, {"IQ2_S", 0}, {"IQ3_XXS", 0}, {"IQ3_S", 0}};

std::vector<Case> AllCases() {
  std::vector<Case> cases(std::begin(kCases), std::end(kCases));
  cases.insert(cases.end(), std::begin(kCellCases), std::end(kCellCases));
  return cases;
}

TEST(BlockRefinementTest, GainIsWhatTheErrorFellByAndTheResidualFollows) {
  for (const auto& [type, first] : AllCases()) {
    Row row(type, first, 1);
    for (const bool scales : {false, true}) {
      const double before = row.Error(row.block_);
      const double gain =
          row.Move([&](BlockRefinement& r) { return scales ? r.MoveScales() : r.MoveCodes(); });
      const double after = row.Error(row.block_);
      EXPECT_LT(after, before) << type;
      // Sums of F32 products, each right to some 1e-6 of `before`.
      EXPECT_NEAR(gain, before - after, 1e-4 * before) << type << (scales ? " scales" : " codes");
      const std::vector<double> exact = row.Residual(row.block_);
      double largest = 0;
      for (const double r : exact) largest = std::max(largest, std::abs(r));
      for (int64_t k = 0; k < kCols; ++k) {
        EXPECT_NEAR(row.residual_[k], exact[k], 1e-4 * largest) << type << ", column " << k;
      }
    }
  }
}

TEST(BlockRefinementTest, WhatItLeavesCanBeStored) {
  for (const auto& [type, first] : AllCases()) {
    Row row(type, first, 2);
    row.Move([](BlockRefinement& r) { return r.MoveCodes() + r.MoveScales() + r.MoveCodes(); });
    std::vector<uint8_t> bytes(static_cast<size_t>(row.type_.block_bytes));
    row.type_.shape->pack(row.block_, bytes.data());
    GgufBlock read;
    UnpackBlock(row.type_, bytes.data(), &read);
    for (int i = 0; i < row.type_.block_size; ++i) {
      ASSERT_EQ(StoredValue(row.type_, read, i), StoredValue(row.type_, row.block_, i))
          << type << ", value " << i;
    }
  }
}

TEST(BlockRefinementTest, EndsWhereNoSingleCodeCanImprove) {
  for (const auto& [type, first] : kCases) {
    Row row(type, first, 3);
    double gain = 1;
    for (int sweep = 0; sweep < 100 && gain > 0; ++sweep) {
      gain = row.Move([](BlockRefinement& r) { return r.MoveCodes(); });
    }
    ASSERT_EQ(gain, 0) << type << ": still moves after a hundred sweeps";
    const double least = row.Error(row.block_);
    const int codes = static_cast<int>(row.type_.shape->levels.size());
    for (int i = 0; i < row.type_.block_size; ++i) {
      for (const int step : {-1, 1}) {
        GgufBlock other = row.block_;
        const int code = other.codes[i] + step;
        if (code < 0 || code >= codes) continue;
        other.codes[i] = static_cast<uint8_t>(code);
        EXPECT_GT(row.Error(other), (1 - 1e-5) * least) << type << ", value " << i;
      }
    }
  }
}

TEST(BlockRefinementTest, EndsWhereNoScaleBesideCanImprove) {
  for (const auto& [type, first] : kCases) {
    Row row(type, first, 4);
    double gain = 1;
    for (int sweep = 0; sweep < 200 && gain > 0; ++sweep) {
      gain = row.Move([](BlockRefinement& r) { return r.MoveScales(); });
    }
    const GgufBlockShape& shape = *row.type_.shape;
    const double least = row.Error(row.block_);
    const auto expect_no_better = [&](const GgufBlock& other, const char* what) {
      EXPECT_GT(row.Error(other), (1 - 1e-5) * least) << type << ": " << what;
    };
    for (const int step : {-1, 1}) {
      GgufBlock other = row.block_;
      if (shape.sub_blocks > 1) {
        other.scale = static_cast<uint16_t>(other.scale + step);
        expect_no_better(other, "F16 scale");
      }
      for (int j = 0; j < shape.sub_blocks; ++j) {
        other = row.block_;
        const int scale = other.sub_scales[j] + step;
        if (scale >= shape.min_sub_scale && scale <= shape.max_sub_scale) {
          other.sub_scales[j] = static_cast<int8_t>(scale);
          expect_no_better(other, "multiple of the scale");
        }
        other = row.block_;
        const int min = other.sub_mins[j] + step;
        if (shape.sub_blocks > 1 && min >= 0 && min <= shape.max_sub_min) {
          other.sub_mins[j] = static_cast<uint8_t>(min);
          expect_no_better(other, "multiple of the minimum");
        }
      }
    }
  }
}

// Weights that a block stores without error, met by a block of which a scale is off: the
// first one, so that no other makes up for it before its turn.
TEST(BlockRefinementTest, FindsScalesThatAreKnown) {
  for (const char* type : {"Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS", "Q4_0", "Q8_0", "IQ3_S"}) {
    Row row(type, 0, 5);
    row.SetWeights(row.block_);
    if (row.type_.shape->sub_blocks > 1) {
      // An odd multiple stays one.
      const int odd = row.type_.shape->sub_scale_step == 2 ? 1 : 0;
      row.block_.sub_scales[0] = static_cast<int8_t>(row.block_.sub_scales[0] * 3 / 4 | odd);
    } else {
      row.block_.scale = FloatToF16(F16ToFloat(row.block_.scale) * (1 + 1.0f / 15));
    }
    const double before = row.Error(row.block_);
    ASSERT_GT(before, 0) << type;
    for (int sweep = 0; sweep < 3; ++sweep) {
      row.Move([](BlockRefinement& r) { return r.MoveScales(); });
    }
    EXPECT_LT(row.Error(row.block_), 1e-4 * before) << type;
  }
}

TEST(BlockRefinementTest, EdgesOfWeights) {
  for (const auto& [type, first] : kCases) {
    Row zero(type, first, 6);
    zero.SetWeights(GgufBlock());
    zero.block_ = GgufBlock();
    EXPECT_EQ(zero.Move([](BlockRefinement& r) { return r.MoveCodes() + r.MoveScales(); }), 0);
    EXPECT_EQ(zero.Error(zero.block_), 0) << type;
    // A column without inputs keeps its code and stops nothing.
    Row dead(type, first, 7);
    for (int64_t k = 0; k < kCols; ++k) {
      dead.h32_.Row(first + 3)[k] = dead.h32_.Row(k)[first + 3] = 0;
      dead.h_[(first + 3) * kCols + k] = dead.h_[k * kCols + first + 3] = 0;
    }
    const uint8_t code = dead.block_.codes[3];
    EXPECT_GT(dead.Move([](BlockRefinement& r) { return r.MoveCodes(); }), 0) << type;
    EXPECT_EQ(dead.block_.codes[3], code) << type;
    EXPECT_GT(dead.Move([](BlockRefinement& r) { return r.MoveScales(); }), 0) << type;
  }
}

}  // namespace
}  // namespace lwq
