// InputStatistics: the order of columns, the damping ladder and its end, columns without inputs.
#include <limits>

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"

namespace lwq {
namespace {

using ::lwq::testing::CorrelatedInputs;
using ::lwq::testing::ElementsOf;
using ::lwq::testing::GaussianMatrix;
using ::lwq::testing::OnDevice;
using ::lwq::testing::QuantizeWith;
using ::lwq::testing::StatisticsOf;
using ::testing::HasSubstr;

Matrix Diagonal(std::vector<float> values) {
  const int64_t n = static_cast<int64_t>(values.size());
  Matrix out(n, n);
  std::fill_n(out.data(), out.size(), 0.0f);
  for (int64_t k = 0; k < n; ++k) out.Row(k)[k] = values[k];
  return out;
}

TEST(InputStatisticsTest, OrdersByDescendingDiagonalTiesByIndex) {
  CpuDevice device(1);
  const Matrix gram = Diagonal({2, 8, 2, 4});
  auto statistics = *InputStatistics::Create(&device, OnDevice(&device, gram.view()), 2, {});
  EXPECT_THAT(statistics->order(), ::testing::ElementsAre(1, 3, 0, 2));
  // Means over the two tokens, 2 of all, damped by .01 of that; in the original order.
  const std::vector<float> weights = ElementsOf(device, statistics->column_weights());
  EXPECT_THAT(weights, ::testing::ElementsAre(1.02f, 4.02f, 1.02f, 2.02f));
  EXPECT_EQ(statistics->damping_retries(), 0);
  statistics = *InputStatistics::Create(&device, OnDevice(&device, gram.view()), 2,
                                        {.damping = 0.01, .act_order = false});
  EXPECT_THAT(statistics->order(), ::testing::ElementsAre(0, 1, 2, 3));
}

// [[1, 1.05], [1.05, 1]] has an eigenvalue of -0.05: 0.01 and 0.03 are not enough, 0.09 is.
TEST(InputStatisticsTest, DampingGrowsUntilItFactors) {
  CpuDevice device(1);
  Matrix gram = Diagonal({1, 1});
  gram.Row(1)[0] = 1.05f;
  const auto statistics = *InputStatistics::Create(&device, OnDevice(&device, gram.view()), 1, {});
  EXPECT_NE(statistics->factor(), nullptr);
  EXPECT_EQ(statistics->damping_retries(), 2);
  EXPECT_NEAR(statistics->damping_used(), 0.09, 1e-12);
}

void ExpectFallback(const Matrix& gram) {
  CpuDevice device(1);
  const auto statistics = *InputStatistics::Create(&device, OnDevice(&device, gram.view()), 1, {});
  EXPECT_EQ(statistics->factor(), nullptr);
  const Matrix weight = GaussianMatrix(4, gram.rows(), 1);
  const auto q = QuantizeWith("gptq", &device, weight.view(), statistics.get(),
                              {GridSpec{.bits = 4, .group_size = 0}});
  ASSERT_EQ(q.size(), 1);
  EXPECT_EQ(q[0].record.method, "rtn");
  EXPECT_THAT(q[0].record.note, HasSubstr("rounded to nearest"));
  EXPECT_LT(q[0].record.relative_weight_error, 0.05);
}

TEST(InputStatisticsTest, WithoutAFactorGptqRoundsToNearestAndSaysSo) {
  Matrix gram = Diagonal({1, 1});
  gram.Row(1)[0] = 9;
  ExpectFallback(gram);
  ExpectFallback(Diagonal({0, 0, 0}));
  ExpectFallback(Diagonal({1, std::numeric_limits<float>::quiet_NaN(), 1}));
  ExpectFallback(Diagonal({1, std::numeric_limits<float>::infinity(), 1}));
}

TEST(InputStatisticsTest, ColumnsWithoutInputsKeepTheNearestCode) {
  CpuDevice device(1);
  Matrix x = CorrelatedInputs(256, 64, 5);
  for (int64_t t = 0; t < x.rows(); ++t) x.Row(t)[7] = x.Row(t)[40] = 0;
  const auto statistics = StatisticsOf(&device, x.view());
  EXPECT_EQ(statistics->num_dead_columns(), 2);
  const Matrix weight = GaussianMatrix(8, 64, 6);
  const GridSpec grid{.bits = 4, .group_size = 32, .search = false};
  const auto gptq = QuantizeWith("gptq", &device, weight.view(), statistics.get(), {grid});
  const auto rtn = QuantizeWith("rtn", &device, weight.view(), nullptr, {grid});
  EXPECT_EQ(gptq[0].record.num_dead_columns, 2);
  for (int64_t r = 0; r < 8; ++r) {
    EXPECT_EQ(gptq[0].codes[r * 64 + 7], rtn[0].codes[r * 64 + 7]);
    EXPECT_EQ(gptq[0].codes[r * 64 + 40], rtn[0].codes[r * 64 + 40]);
  }
}

}  // namespace
}  // namespace lwq
