// Rows of a linear do not depend on each other: quantized apart they are what they are together,
// and their records add up.
#include "gmock/gmock.h"
#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq::testing {
namespace {

TEST(RowsApartTest, GptqOfRowsIsThatOfAll) {
  ReferenceDevice device;
  const Problem problem = RandomProblem(48, 64, 7);
  const auto statistics = StatisticsOf(&device, problem.inputs.view());
  LWQ_ASSERT_OK_AND_ASSIGN(const QuantizerDef* def, FindQuantizer("gptq"));
  const auto quantizer = def->make(OptionValues(def->options));
  const std::vector<GridSpec> grids = {{.bits = 3, .group_size = 32},
                                       {.bits = 4, .group_size = 32, .symmetric = false}};
  const auto quantize = [&](int64_t first, int64_t count) {
    const auto weight = OnDevice(&device, problem.weight.view().Rows(first, count));
    return quantizer->Quantize(&device, weight->view(), statistics.get(), grids);
  };
  LWQ_ASSERT_OK_AND_ASSIGN(const auto whole, quantize(0, 48));
  LWQ_ASSERT_OK_AND_ASSIGN(auto first, quantize(0, 32));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto last, quantize(32, 16));
  for (size_t i = 0; i < grids.size(); ++i) {
    std::vector<uint8_t> codes = first[i].codes;
    codes.insert(codes.end(), last[i].codes.begin(), last[i].codes.end());
    EXPECT_EQ(codes, whole[i].codes);
    LinearRecord record = first[i].record;
    record.AddRows(last[i].record);
    const LinearRecord& all = whole[i].record;
    EXPECT_GT(all.refinement_gain, 0);
    EXPECT_NEAR(record.relative_weight_error / all.relative_weight_error, 1, 1e-12);
    EXPECT_NEAR(record.calibrated_error / all.calibrated_error, 1, 1e-12);
    EXPECT_NEAR(record.refinement_gain / all.refinement_gain, 1, 1e-12);
    EXPECT_NEAR(record.square / all.square, 1, 1e-12);
  }
}

}  // namespace
}  // namespace lwq::testing
