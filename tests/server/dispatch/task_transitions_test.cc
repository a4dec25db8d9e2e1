// What jobs are told of a task that ended.
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Scenario;

// Workers know a text by its content alone.
TEST(BadInputs, ATextThatCannotBeReadIsNamed) {
  for (const bool of_evaluation : {false, true}) {
    Scenario s(3);
    s.Register("w", "incarnation-w");
    v1::JobSpec spec = s.Spec("gptq", "kl", 1000);
    spec.mutable_quantize()->mutable_calibration()->set_dataset("datasets/of-calibration");
    s.AddDataset("datasets/of-calibration");
    ASSERT_OK(s.Submit("jobs/a", spec));
    for (int i = 0; i < 100 && !IsTerminal(s.StateOf("jobs/a")); ++i) {
      for (const v1::Lease& lease : s.Lease("w")) {
        const bool fails =
            of_evaluation ? lease.spec().has_evaluate() : lease.spec().has_calibrate();
        ASSERT_OK(fails ? s.Fail("w", lease, "DATASET_INVALID", absl::StatusCode::kInvalidArgument)
                        : s.Complete("w", lease));
      }
    }
    const v1::Failure& failure = s.records["jobs/a"].job().failure();
    EXPECT_EQ(failure.reason(), "DATASET_INVALID");
    EXPECT_EQ(failure.message(), of_evaluation ? "datasets/builtin-mixed: made to fail"
                                               : "datasets/of-calibration: made to fail");
  }
}

}  // namespace
}  // namespace lwq
