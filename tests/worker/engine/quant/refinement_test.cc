// Refinement against its definition: the calibrated error in double before and after, and the local
// optimum that repeated sweeps must end in, found by trying every neighbouring code.
#include "worker/engine/quant/refinement.h"

#include <cmath>
#include <utility>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {
namespace {

using ::lwq::testing::CalibratedError;
using ::lwq::testing::DampedHessian;
using ::lwq::testing::OnDevice;
using ::lwq::testing::Problem;
using ::lwq::testing::QuantizeWith;
using ::lwq::testing::RandomProblem;
using ::lwq::testing::StatisticsOf;
using ::lwq::testing::ValuesOf;

constexpr double kDamping = 0.01;

// A linear that is rounded to nearest, to be refined.
class Rounded {
 public:
  Rounded(Device* device, ConstMatrixView weight, const GridSpec& grid)
      : device_(device), weight_(OnDevice(device, weight)) {
    auto linear = RoundToNearest(device, weight_->view(), grid, {});
    EXPECT_OK(linear.status());
    linear_ = *std::move(linear);
  }
  // What the sweeps gained.
  double Refine(const InputStatistics& statistics) {
    EXPECT_OK(lwq::Refine(device_, weight_->view(), statistics, &linear_));
    return Now().record.refinement_gain;
  }
  QuantizedLinear Now() const {
    auto now = ReadBack(device_, weight_->view(), linear_);
    EXPECT_OK(now.status());
    return *std::move(now);
  }

 private:
  Device* const device_;
  const std::unique_ptr<DeviceMatrix> weight_;
  DeviceLinear linear_;
};

// Grids of every kind: groups below, at and above the size of a block, symmetric and not.
std::vector<GridSpec> Grids() {
  return {{.bits = 2, .group_size = 32}, {.bits = 3, .group_size = 128},
          {.bits = 4, .group_size = 96}, {.bits = 3, .group_size = 192},
          {.bits = 2, .group_size = 0},  {.bits = 2, .group_size = 64, .symmetric = false},
          {.bits = 8, .group_size = 128}};
}

TEST(RefinementTest, GainIsWhatTheErrorFellBy) {
  CpuDevice device(2);
  const Problem p = RandomProblem(12, 768, 1);  // more columns than are updated together
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  for (const GridSpec& grid : Grids()) {
    Rounded q(&device, p.weight.view(), grid);
    const double before = CalibratedError(p.weight.view(), ValuesOf(q.Now()).view(), h);
    const double gain = q.Refine(*statistics);
    const double after = CalibratedError(p.weight.view(), ValuesOf(q.Now()).view(), h);
    EXPECT_LT(after, before) << grid.bits << " bits, groups of " << grid.group_size;
    // The gains are sums of F32 terms, each right to some 1e-6 of `before`.
    EXPECT_NEAR(gain, before - after, 1e-4 * before)
        << grid.bits << " bits, groups of " << grid.group_size;
  }
}

TEST(RefinementTest, LowersTheErrorOfGptq) {
  CpuDevice device(2);
  const Problem p = RandomProblem(32, 256, 2);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const auto once =
      StatisticsOf(&device, p.inputs.view(), {.damping = kDamping, .refinement = false});
  const auto refined = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  for (const int bits : {2, 3, 4}) {
    const GridSpec grid{.bits = bits, .group_size = 64};
    const auto plain = QuantizeWith("gptq", &device, p.weight.view(), once.get(), {grid});
    const auto better = QuantizeWith("gptq", &device, p.weight.view(), refined.get(), {grid});
    const double error = CalibratedError(p.weight.view(), ValuesOf(better[0]).view(), h);
    EXPECT_EQ(plain[0].record.refinement_gain, 0);
    EXPECT_LT(error, CalibratedError(p.weight.view(), ValuesOf(plain[0]).view(), h));
    EXPECT_NEAR(better[0].record.calibrated_error / error, 1, 1e-3) << bits << " bits";
  }
}

TEST(RefinementTest, LeavesEightBitsAsGptqMadeThem) {
  CpuDevice device(2);
  const Problem p = RandomProblem(8, 128, 5);
  const auto once = StatisticsOf(&device, p.inputs.view(), {.refinement = false});
  const auto kept = StatisticsOf(&device, p.inputs.view());
  const GridSpec grid{.bits = 8, .group_size = 64};
  const auto plain = QuantizeWith("gptq", &device, p.weight.view(), once.get(), {grid});
  const auto same = QuantizeWith("gptq", &device, p.weight.view(), kept.get(), {grid});
  EXPECT_EQ(plain[0].codes, same[0].codes);
  EXPECT_EQ(same[0].record.refinement_gain, 0);
}

// After sweeps that find nothing more, no code has a better neighbour (to within F32 sums).
TEST(RefinementTest, EndsWhereNoSingleCodeCanImprove) {
  CpuDevice device(1);
  const Problem p = RandomProblem(6, 160, 3);
  const std::vector<double> h = DampedHessian(p.inputs.view(), kDamping);
  const auto statistics = StatisticsOf(&device, p.inputs.view(), {.damping = kDamping});
  Rounded rounded(&device, p.weight.view(), GridSpec{.bits = 3, .group_size = 32});
  double gain = 1;
  for (int sweep = 0; sweep < 100 && gain > 0; ++sweep) gain = rounded.Refine(*statistics);
  const QuantizedLinear q = rounded.Now();
  EXPECT_EQ(gain, 0) << "a sweep still changes something after a hundred";
  const Matrix values = ValuesOf(q);
  for (int64_t r = 0; r < 6; ++r) {
    const ConstMatrixView w = p.weight.view().Rows(r, 1);
    const double least = CalibratedError(w, values.view().Rows(r, 1), h);
    for (int64_t k = 0; k < 160; ++k) {
      for (const int step : {-1, 1}) {
        const int code = q.codes[r * 160 + k] + step;
        if (code < 0 || code > 7) continue;
        Matrix other = ::lwq::testing::CopyOf(values.view().Rows(r, 1));
        other.Row(0)[k] += static_cast<float>(step) * q.scales.Row(r)[k / 32];
        EXPECT_GT(CalibratedError(w, other.view(), h), (1 - 1e-5) * least) << r << ", " << k;
      }
    }
  }
}

TEST(RefinementTest, LeavesScalesThatWereNotSearched) {
  CpuDevice device(2);
  const Problem p = RandomProblem(9, 128, 4);
  const auto statistics = StatisticsOf(&device, p.inputs.view());
  Rounded rounded(&device, p.weight.view(), GridSpec{.bits = 3, .group_size = 32, .search = false});
  const QuantizedLinear before = rounded.Now();
  EXPECT_GT(rounded.Refine(*statistics), 0);
  const QuantizedLinear after = rounded.Now();
  EXPECT_TRUE(std::equal(before.scales.data(), before.scales.data() + before.scales.size(),
                         after.scales.data()));
}

}  // namespace
}  // namespace lwq
