#include "worker/engine/score/cost_curve.h"

#include "gmock/gmock.h"

namespace lwq {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(CostCurveTest, TheCoarsestAndOneTwoBitsFinerAreMeasured) {
  EXPECT_THAT(FormatsToMeasure({16, 4, 1, 1.0 / 256}), ElementsAre(0, 2));
  // Groups of 128, 64, 32 at two bits, then three and four: what counts is the error.
  EXPECT_THAT(FormatsToMeasure({16, 14, 12, 4, 3.5, 3, 1, .9}), ElementsAre(0, 6));
  EXPECT_THAT(FormatsToMeasure({16, 8, 4}), ElementsAre(0, 2)) << "the finest that there is";
  EXPECT_THAT(FormatsToMeasure({16, 4}), ElementsAre(0, 1));
  EXPECT_THAT(FormatsToMeasure({0, 0, 0, 0}), ElementsAre(0, 1, 2, 3)) << "errors not known";
  EXPECT_THAT(FormatsToMeasure({0, 16, 4, 0, 1}), ElementsAre(0, 1, 3, 4)) << "some not known";
  EXPECT_THAT(FormatsToMeasure({0, 16, 4}), ElementsAre(0, 1, 2));
  EXPECT_THAT(FormatsToMeasure({}), ElementsAre());
}

TEST(CostCurveTest, OthersLieOnThePowerOfTheErrorThroughBoth) {
  // cost = error^1.5.
  const std::vector<double> costs = CostsFromErrors({16, 4, 1, 1.0 / 4}, {0, 2}, {64, 1});
  EXPECT_THAT(costs, ElementsAre(64, DoubleNear(8, 1e-12), 1, DoubleNear(1.0 / 8, 1e-12)));
  // A format between the two costs no less than the finer, however flat the two are.
  EXPECT_THAT(CostsFromErrors({12, 3, 1}, {0, 2}, {1e-3, 9e-4}), ElementsAre(1e-3, 9e-4, 9e-4));
  // What was measured stays, and a curve that rounding bent is no steeper than the square.
  EXPECT_THAT(CostsFromErrors({16, 4, 1}, {0, 2}, {1e6, 1}),
              ElementsAre(1e6, DoubleNear(1e6 / 16, 1e-6), 1));
  EXPECT_THAT(CostsFromErrors({16, 4, 1}, {0, 2}, {2, 0}),
              ElementsAre(2, DoubleNear(0.5, 1e-12), 0))
      << "no power: in proportion";
  EXPECT_THAT(CostsFromErrors({16, 4, 1}, {0, 1, 2}, {3, 2, 1}), ElementsAre(3, 2, 1));
  // One of a cost that no error tells is in nobody's way: cost = error^1.5 for the others.
  EXPECT_THAT(CostsFromErrors({0, 16, 4, 0, 1}, {0, 1, 3, 4}, {7, 64, 9, 1}),
              ElementsAre(7, 64, DoubleNear(8, 1e-12), 9, 1));
}

}  // namespace
}  // namespace lwq
