#include "worker/engine/quant/lookups.h"

#include "tests/worker/engine/quant/quant_problem.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/reference/reference_device.h"

namespace lwq::testing {
namespace {

TEST(LookupsTest, AddsAShareOfTheMeanToTheDiagonalAlone) {
  ReferenceDevice far_away(HostSpace(HostSpace::kFarAway));
  Matrix gram(2, 2);
  gram.Row(0)[0] = 2;
  gram.Row(0)[1] = 7;
  gram.Row(1)[0] = -3;
  gram.Row(1)[1] = 6;
  const auto there = OnDevice(&far_away, gram.view());
  EXPECT_OK(AddLookups(&far_away, 0.5, there->view()));
  EXPECT_OK(far_away.Download(there->view(), gram.view()));
  EXPECT_EQ(gram.Row(0)[0], 4);
  EXPECT_EQ(gram.Row(0)[1], 7);
  EXPECT_EQ(gram.Row(1)[0], -3);
  EXPECT_EQ(gram.Row(1)[1], 8);
}

// Errors of the table itself fall where lookups count, and those of the head rise.
TEST(LookupsTest, TradesErrorsOfTheHeadForThoseOfTheTable) {
  CpuDevice device(2);
  const Problem p = RandomProblem(24, 256, 1);
  const std::vector<double> h = DampedHessian(p.inputs.view(), 0);
  const auto weight = OnDevice(&device, p.weight.view());
  LWQ_ASSERT_OK_AND_ASSIGN(const QuantizerDef* gptq, FindQuantizer("gptq"));
  double table[2], head[2];
  for (const bool counted : {false, true}) {
    LWQ_ASSERT_OK_AND_ASSIGN(auto gram, device.NewMatrix(256, 256));
    EXPECT_OK(device.FillZero(gram->view()));
    const auto inputs = OnDevice(&device, p.inputs.view());
    EXPECT_OK(device.AccumulateGram(inputs->view(), ComputeType::kF32, gram->view()));
    EXPECT_OK(AddLookups(&device, counted ? 1 : 0, gram->view()));
    const auto quantizer = gptq->make(OptionValues(gptq->options));
    LWQ_ASSERT_OK_AND_ASSIGN(
        const auto statistics,
        quantizer->Prepare(&device, std::move(gram), p.inputs.rows(), ComputeType::kF32));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto blocks,
                             quantizer->QuantizeToBlocks(&device, weight->view(), statistics.get(),
                                                         {FindGgufType("Q2_K")}, GgufFit::kSearch));
    Matrix values(24, 256);
    const GgufTypeDef& type = *FindGgufType("Q2_K");
    for (int64_t r = 0; r < 24; ++r) {
      const char* row = blocks[0].bytes.data() + r * type.RowBytes(256);
      DequantizeRow(type, reinterpret_cast<const uint8_t*>(row), 256, values.Row(r));
    }
    table[counted] = blocks[0].record.relative_weight_error;
    head[counted] = CalibratedError(p.weight.view(), values.view(), h);
  }
  EXPECT_LT(table[1], 0.9 * table[0]);
  EXPECT_GT(head[1], head[0]);
}

}  // namespace
}  // namespace lwq::testing
