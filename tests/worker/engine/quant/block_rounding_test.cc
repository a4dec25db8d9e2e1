// Blocks with error feedback against GPTQ as its paper has it, in double, on the blocks' own
// scales; and without, against the block library itself.
#include "worker/engine/quant/block_rounding.h"

#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "tests/worker/engine/quant/quant_problem.h"
#include "tests/worker/engine/quant/textbook_gptq.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq {
namespace {

using ::lwq::testing::CalibratedError;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::FailsWith;
using ::lwq::testing::InverseFactor;
using ::lwq::testing::OnDevice;
using ::lwq::testing::Problem;
using ::lwq::testing::RandomProblem;
using ::lwq::testing::StatisticsOf;
using ::testing::HasSubstr;

constexpr double kDamping = 0.01;

absl::StatusOr<BlockLinear> Quantize(absl::string_view method, Device* device,
                                     ConstMatrixView weight, const InputStatistics* statistics,
                                     const char* type, GgufFit fit = GgufFit::kSearch) {
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(method));
  const auto on_device = OnDevice(device, weight);
  LWQ_ASSIGN_OR_RETURN(
      std::vector<BlockLinear> out,
      def->make(OptionValues(def->options))
          ->QuantizeToBlocks(device, on_device->view(), statistics, {FindGgufType(type)}, fit));
  return std::move(out.at(0));
}

Matrix ValuesOf(const BlockLinear& linear, const char* name, int64_t rows, int64_t cols) {
  const GgufTypeDef& type = *FindGgufType(name);
  Matrix out(rows, cols);
  EXPECT_EQ(static_cast<int64_t>(linear.bytes.size()), rows * type.RowBytes(cols));
  for (int64_t r = 0; r < rows; ++r) {
    const char* row = linear.bytes.data() + r * type.RowBytes(cols);
    DequantizeRow(type, reinterpret_cast<const uint8_t*>(row), cols, out.Row(r));
  }
  return out;
}

double SquaredDistance(const Matrix& a, ConstMatrixView b) {
  double sum = 0;
  for (int64_t r = 0; r < b.rows; ++r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      const double d = double{a.Row(r)[c]} - b.Row(r)[c];
      sum += d * d;
    }
  }
  return sum;
}

TEST(BlockRoundingTest, RtnIsTheBlockLibrarysOwnRounding) {
  CpuDevice device(2);
  const Problem p = RandomProblem(5, 512, 1);
  for (const GgufFit fit : {GgufFit::kSearch, GgufFit::kReference}) {
    for (const char* name : {"Q4_K", "Q8_0", "IQ4_XS"}) {
      const GgufTypeDef& type = *FindGgufType(name);
      std::string expected(static_cast<size_t>(5 * type.RowBytes(512)), '\0');
      for (int64_t r = 0; r < 5; ++r) {
        QuantizeRow(type, fit, {p.weight.Row(r), 512}, {},
                    reinterpret_cast<uint8_t*>(expected.data()) + r * type.RowBytes(512));
      }
      LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear q,
                               Quantize("rtn", &device, p.weight.view(), nullptr, name, fit));
      EXPECT_EQ(q.bytes, expected) << name;
      EXPECT_EQ(q.record.method, "rtn");
      EXPECT_EQ(q.record.calibrated_error, 0);
      Matrix zero(5, 512);
      std::memset(zero.data(), 0, sizeof(float) * 5 * 512);
      const double relative = SquaredDistance(ValuesOf(q, name, 5, 512), p.weight.view()) /
                              SquaredDistance(zero, p.weight.view());
      EXPECT_NEAR(q.record.relative_weight_error / relative, 1, 1e-9);
    }
  }
}

// The same column by column in double: act-order, scales of the original weights, weighted with the
// damped diagonal. Where a value lies on the border of two codes F32 and double may part ways, and
// then so does all that follows, so errors are compared, and most values.
TEST(BlockRoundingTest, FeedbackIsTextbookGptqOnTheBlocksScales) {
  constexpr int64_t kRows = 6, kCols = 768;  // a large block and half of one
  CpuDevice device(2);
  const Problem p = RandomProblem(kRows, kCols, 2);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, true, false});
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const std::vector<int32_t>& order = statistics->order();
  std::vector<double> permuted(h.size());
  for (int64_t i = 0; i < kCols; ++i) {
    for (int64_t j = 0; j < kCols; ++j) permuted[i * kCols + j] = h[order[i] * kCols + order[j]];
  }
  const std::vector<double> u = InverseFactor(std::move(permuted), kCols);
  const std::vector<float> importance =
      ::lwq::testing::ElementsOf(device, statistics->column_weights());
  for (const char* name : {"Q3_K", "Q4_K", "Q5_0", "IQ3_S", "IQ2_XS"}) {
    const GgufTypeDef& type = *FindGgufType(name);
    const int64_t size = type.block_size;
    // Codes of a cell are chosen together, when the first of its columns has its turn.
    const bool has_cells = type.shape->codebook != nullptr;
    const int64_t cell = has_cells ? type.shape->codebook().cell_size() : 1;
    const BlockFitter fitter(type, GgufFit::kSearch);
    Matrix expected(kRows, kCols);
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<BlockGrid> grids;
      grids.reserve(static_cast<size_t>(kCols / size));
      for (int64_t b = 0; b < kCols / size; ++b) {
        GgufBlock block;
        fitter.Fit({p.weight.Row(r) + b * size, static_cast<size_t>(size)},
                   {importance.data() + b * size, static_cast<size_t>(size)}, &block);
        grids.emplace_back(type, block);
      }
      std::vector<double> w(kCols);
      std::vector<int64_t> place(kCols);
      std::map<int64_t, std::vector<uint8_t>> codes;  // of cells, by their first column
      for (int64_t j = 0; j < kCols; ++j) w[j] = p.weight.Row(r)[order[j]];
      for (int64_t j = 0; j < kCols; ++j) place[order[j]] = j;
      for (int64_t j = 0; j < kCols; ++j) {
        const BlockGrid& grid = grids[static_cast<size_t>(order[j] / size)];
        const int in_block = static_cast<int>(order[j] % size);
        const int64_t first = order[j] - order[j] % cell;
        if (has_cells && codes.count(first) == 0) {
          std::vector<float> now(cell);
          for (int64_t k = 0; k < cell; ++k) now[k] = static_cast<float>(w[place[first + k]]);
          codes[first].resize(cell);
          grid.RoundCell(static_cast<int>(first % size), now.data(), importance.data() + first,
                         codes[first].data());
        }
        const float value = has_cells ? grid.ValueOf(in_block, codes[first][order[j] % cell])
                                      : grid.Round(in_block, static_cast<float>(w[j])).value;
        expected.Row(r)[order[j]] = value;
        const double error = (w[j] - value) / u[j * kCols + j];
        for (int64_t k = j + 1; k < kCols; ++k) w[k] -= error * u[j * kCols + k];
      }
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear q,
                             Quantize("gptq", &device, p.weight.view(), statistics.get(), name));
    const Matrix values = ValuesOf(q, name, kRows, kCols);
    int64_t differ = 0;
    for (int64_t i = 0; i < values.size(); ++i) differ += values.data()[i] != expected.data()[i];
    EXPECT_LT(differ, values.size() / 20) << name;
    const double error = CalibratedError(p.weight.view(), values.view(), h);
    EXPECT_NEAR(error / CalibratedError(p.weight.view(), expected.view(), h), 1, 0.02) << name;
    // What the quantizer says of itself is the error as it is defined.
    EXPECT_NEAR(q.record.calibrated_error / error, 1, 1e-3) << name;
    EXPECT_EQ(q.record.method, "gptq");
  }
}

TEST(BlockRoundingTest, FeedbackHalvesTheErrorOfCorrelatedInputs) {
  CpuDevice device(2);
  const Problem p = RandomProblem(16, 512, 3);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  for (const bool act_order : {true, false}) {
    const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, act_order, false});
    for (const char* name : {"Q2_K", "Q4_K", "IQ4_NL", "Q8_0", "IQ3_S", "IQ2_XS"}) {
      LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear rtn,
                               Quantize("rtn", &device, p.weight.view(), nullptr, name));
      LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear gptq,
                               Quantize("gptq", &device, p.weight.view(), statistics.get(), name));
      const double before =
          CalibratedError(p.weight.view(), ValuesOf(rtn, name, 16, 512).view(), h);
      const double after =
          CalibratedError(p.weight.view(), ValuesOf(gptq, name, 16, 512).view(), h);
      EXPECT_LT(after, 0.5 * before) << name << (act_order ? ", act order" : "");
      EXPECT_NEAR(gptq.record.calibrated_error / after, 1, 1e-3) << name;
    }
  }
}

TEST(BlockRoundingTest, NeitherThreadsNorADeviceOfAnotherMemoryChangeABit) {
  const Problem p = RandomProblem(9, 256, 4);
  CpuDevice one(1), three(3);
  const auto statistics = StatisticsOf(&one, p.inputs.view(), {kDamping, true, false});
  const auto same = StatisticsOf(&three, p.inputs.view(), {kDamping, true, false});
  LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear a,
                           Quantize("gptq", &one, p.weight.view(), statistics.get(), "Q4_K"));
  LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear b,
                           Quantize("gptq", &three, p.weight.view(), same.get(), "Q4_K"));
  EXPECT_EQ(a.bytes, b.bytes);
  EXPECT_EQ(a.record.calibrated_error, b.record.calibrated_error);
  // Host memory is never taken for the device's.
  ReferenceDevice far_away(HostSpace(HostSpace::kFarAway));
  const auto there = StatisticsOf(&far_away, p.inputs.view(), {kDamping, true, false});
  EXPECT_OK(Quantize("gptq", &far_away, p.weight.view(), there.get(), "Q4_K"));
}

TEST(BlockRoundingTest, EdgesOfWeights) {
  CpuDevice device(2);
  Problem p = RandomProblem(3, 256, 5);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, true, false});
  std::memset(p.weight.Row(1), 0, 256 * sizeof(float));
  p.weight.Row(2)[7] = 100;  // one outlier
  LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear q,
                           Quantize("gptq", &device, p.weight.view(), statistics.get(), "Q6_K"));
  const Matrix values = ValuesOf(q, "Q6_K", 3, 256);
  for (int64_t c = 0; c < 256; ++c) EXPECT_EQ(values.Row(1)[c], 0);
  EXPECT_NEAR(values.Row(2)[7], 100, 2);
  p.weight.Row(0)[0] = std::nanf("");
  EXPECT_THAT(Quantize("gptq", &device, p.weight.view(), statistics.get(), "Q6_K"),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("quantizing")));
  EXPECT_THAT(Quantize("gptq", &device, p.weight.view(), nullptr, "Q6_K"),
              FailsWith("CALIBRATION_MISSING", HasSubstr("second moments")));
}

// More rows than are worked on at once: a slab does not see another's.
TEST(BlockRoundingTest, RowsDoNotDependOnEachOther) {
  CpuDevice device(2);
  const Problem p = RandomProblem(2050, 32, 6);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {kDamping, true, false});
  LWQ_ASSERT_OK_AND_ASSIGN(const BlockLinear all,
                           Quantize("gptq", &device, p.weight.view(), statistics.get(), "Q4_0"));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const BlockLinear last,
      Quantize("gptq", &device, p.weight.view().Rows(2048, 2), statistics.get(), "Q4_0"));
  EXPECT_EQ(all.bytes.substr(all.bytes.size() - last.bytes.size()), last.bytes);
}

}  // namespace
}  // namespace lwq
