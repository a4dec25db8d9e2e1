// Sweeps over whole weights: the calibrated error in double before and after, and that neither
// threads nor other rows matter.
#include "worker/engine/quant/block_descent.h"

#include <cstring>
#include <utility>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/plan/work_model.h"
#include "worker/engine/quant/block_rounding.h"

namespace lwq {
namespace {

using ::lwq::testing::CalibratedError;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::OnDevice;
using ::lwq::testing::Problem;
using ::lwq::testing::RandomProblem;
using ::lwq::testing::StatisticsOf;

constexpr double kDamping = 0.01;

BlockLinear Round(Device* device, ConstMatrixView weight, const InputStatistics& statistics,
                  const char* type, const BlockMethod& method, GgufFit fit = GgufFit::kSearch) {
  const auto on_device = OnDevice(device, weight);
  auto out =
      RoundToBlocksFor(statistics, method, device, on_device->view(), *FindGgufType(type), fit);
  EXPECT_OK(out.status());
  return *std::move(out);
}

double ErrorOf(const BlockLinear& linear, ConstMatrixView weight, const char* name,
               const std::vector<double>& h) {
  const GgufTypeDef& type = *FindGgufType(name);
  Matrix values(weight.rows, weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    const char* row = linear.bytes.data() + r * type.RowBytes(weight.cols);
    DequantizeRow(type, reinterpret_cast<const uint8_t*>(row), weight.cols, values.Row(r));
  }
  return CalibratedError(weight, values.view(), h);
}

// Columns in several large blocks, the last one short.
TEST(BlockDescentTest, GainIsWhatTheErrorFellBy) {
  CpuDevice device(2);
  for (const auto& [type, cols] : {std::pair("Q2_K", 768), {"Q4_K", 512}, {"Q4_1", 352}, {"IQ3_XXS", 768}}) {
    const Problem p = RandomProblem(10, cols, 1);
    const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
    const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
    for (const bool refinement : {false, true}) {
      BlockMethod method{.sweeps = 0, .refinement = refinement};
      double last = 0;
      for (const int sweeps : {0, 1, 4}) {
        method.sweeps = sweeps;
        const BlockLinear q = Round(&device, p.weight.view(), *statistics, type, method);
        const double error = ErrorOf(q, p.weight.view(), type, h);
        EXPECT_NEAR(q.record.calibrated_error / error, 1, 1e-3) << type << ", " << sweeps;
        EXPECT_EQ(q.record.refinement_gain > 0, sweeps > 0) << type;
        EXPECT_TRUE(sweeps == 0 || error < last) << type << ", " << sweeps << ": " << error;
        last = error;
      }
    }
  }
}

TEST(BlockDescentTest, ForecastsKnowHowOftenItSweepsByDefault) {
  EXPECT_EQ(BlockMethod().sweeps, kDefaultBlockSweeps);
  LWQ_ASSERT_OK_AND_ASSIGN(const QuantizerDef* gptq, FindQuantizer("gptq"));
  EXPECT_EQ(OptionValues(gptq->options).Integer("block-sweeps"), kDefaultBlockSweeps);
}

// Nobody sums the loss while columns are rounded: it is taken before the first sweep.
TEST(BlockDescentTest, TheErrorIsSaidWithoutFeedbackToo) {
  CpuDevice device(2);
  for (const auto& [type, cols] : {std::pair("Q2_K", 768), {"Q4_1", 352}, {"Q8_0", 512}}) {
    const Problem p = RandomProblem(10, cols, 7);
    const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
    const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
    for (const int sweeps : {0, 1, 4}) {
      const BlockLinear q = Round(&device, p.weight.view(), *statistics, type,
                                  {.feedback = false, .sweeps = sweeps});
      const double error = ErrorOf(q, p.weight.view(), type, h);
      EXPECT_NEAR(q.record.calibrated_error / error, 1, 1e-3) << type << ", " << sweeps;
    }
  }
}

TEST(BlockDescentTest, RefinementOfScalesGainsBesidesThatOfCodes) {
  CpuDevice device(2);
  const Problem p = RandomProblem(16, 512, 2);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  for (const char* type : {"Q2_K", "Q3_K", "Q4_K", "IQ4_XS", "Q4_0", "IQ3_S", "IQ2_XS"}) {
    const auto error = [&](const BlockMethod& method) {
      return ErrorOf(Round(&device, p.weight.view(), *statistics, type, method), p.weight.view(),
                     type, h);
    };
    const double codes = error({.refinement = false});
    EXPECT_LT(error({}), codes) << type;
    EXPECT_LT(codes, error({.sweeps = 0})) << type;
    // Sweeps alone make up for much of what feedback would have.
    EXPECT_LT(error({.feedback = false}), 0.6 * error({.feedback = false, .sweeps = 0})) << type;
  }
}

TEST(BlockDescentTest, LeavesFineTypesAsGptqMadeThem) {
  CpuDevice device(2);
  const Problem p = RandomProblem(4, 256, 5);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  for (const char* type : {"Q6_K", "Q8_0"}) {
    const BlockLinear once = Round(&device, p.weight.view(), *statistics, type, {.sweeps = 0});
    EXPECT_EQ(Round(&device, p.weight.view(), *statistics, type, {}).bytes, once.bytes) << type;
  }
}

TEST(BlockDescentTest, ScalesThatWereNotSearchedStay) {
  CpuDevice device(2);
  const Problem p = RandomProblem(4, 256, 3);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  const GgufTypeDef& type = *FindGgufType("Q4_K");
  const BlockLinear before =
      Round(&device, p.weight.view(), *statistics, "Q4_K", {.sweeps = 0}, GgufFit::kReference);
  const BlockLinear after =
      Round(&device, p.weight.view(), *statistics, "Q4_K", {}, GgufFit::kReference);
  EXPECT_GT(after.record.refinement_gain, 0);
  for (int64_t r = 0; r < 4; ++r) {  // d, dmin and the multiples are a block's first 16 bytes
    const int64_t at = r * type.RowBytes(256);
    EXPECT_EQ(before.bytes.substr(at, 16), after.bytes.substr(at, 16));
  }
}

TEST(BlockDescentTest, NeitherThreadsNorOtherRowsChangeABit) {
  const Problem p = RandomProblem(9, 512, 4);
  CpuDevice one(1), three(3);
  const auto statistics = StatisticsOf(&one, p.inputs.view(), {.damping = kDamping});
  const auto same = StatisticsOf(&three, p.inputs.view(), {.damping = kDamping});
  const BlockLinear a = Round(&one, p.weight.view(), *statistics, "Q3_K", {});
  const BlockLinear b = Round(&three, p.weight.view(), *same, "Q3_K", {});
  EXPECT_EQ(a.bytes, b.bytes);
  EXPECT_EQ(a.record.calibrated_error, b.record.calibrated_error);
  // A row that is done early does not stop, nor go on with, the others.
  Problem with_zeros = RandomProblem(9, 512, 4);
  std::memset(with_zeros.weight.Row(0), 0, 512 * sizeof(float));
  const BlockLinear c = Round(&one, with_zeros.weight.view(), *statistics, "Q3_K", {});
  const auto row = static_cast<size_t>(FindGgufType("Q3_K")->RowBytes(512));
  EXPECT_EQ(c.bytes.substr(row), a.bytes.substr(row));
  // Host memory is never taken for the device's.
  ReferenceDevice far_away(HostSpace(HostSpace::kFarAway));
  const auto there = StatisticsOf(&far_away, p.inputs.view(), {.damping = kDamping});
  EXPECT_GT(Round(&far_away, p.weight.view(), *there, "Q3_K", {}).record.refinement_gain, 0);
}

}  // namespace
}  // namespace lwq
