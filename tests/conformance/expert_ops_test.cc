// The operations of a mixture of experts on every device against the reference, and the reference
// against numbers worked out by hand.
#include <cmath>
#include <limits>

#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

class ExpertOps : public DeviceTest {
 protected:
  ::testing::AssertionResult Agrees(const Operation& operation, const Matrix& start,
                                    double bound) const {
    return Judge(*GetParam(), operation, start).Within(bound);
  }
};

Matrix MatrixOf(int64_t rows, int64_t cols, const std::vector<float>& values) {
  Matrix m(rows, cols);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

TEST_P(ExpertOps, TheGreatestAreChosenAndEqualOnesInTheirOrder) {
  // Powers of e over the first: 1, 1/2, 1/4; the others 0. Then three equal ones.
  const float low = -1000, half = std::log(0.5f), quarter = std::log(0.25f);
  const auto logits =
      OnDevice(device_.get(), MatrixOf(2, 4, {quarter, low, 0, half, 2, 2, 1, 2}).view());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto chosen, device_->NewBuffer<int32_t>(2, 2));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto share, device_->NewMatrix(2, 2));
  ASSERT_OK(device_->ChooseExperts(logits->view(), false, chosen->view(), share->view()));
  EXPECT_THAT(ElementsOf(*device_, chosen->view()), ElementsAre(2, 3, 0, 1));
  const float equal = 1 / (3 + std::exp(-1.0f));
  EXPECT_THAT(ElementsOf(*device_, share->view()),
              ElementsAre(FloatNear(4.0f / 7, 1e-6f), FloatNear(2.0f / 7, 1e-6f),
                          FloatNear(equal, 1e-6f), FloatNear(equal, 1e-6f)));
  ASSERT_OK(device_->ChooseExperts(logits->view(), true, chosen->view(), share->view()));
  EXPECT_THAT(ElementsOf(*device_, share->view()),
              ElementsAre(FloatNear(2.0f / 3, 1e-6f), FloatNear(1.0f / 3, 1e-6f),
                          FloatNear(0.5f, 1e-6f), FloatNear(0.5f, 1e-6f)));
}

TEST_P(ExpertOps, SharesAgree) {
  for (const int64_t experts : {1, 7, 128}) {
    const int64_t wanted = std::min<int64_t>(experts, 8);
    const Matrix logits = Random(37, experts, 1, 20), start = Zeros(37, wanted);
    for (const bool normalized : {false, true}) {
      // A quotient of sums in F64, rounded once.
      EXPECT_TRUE(Agrees(
          [&](Device& device, DeviceView<float> out) -> absl::Status {
            LWQ_ASSIGN_OR_RETURN(const auto chosen, device.NewBuffer<int32_t>(37, wanted));
            return device.ChooseExperts(OnDevice(&device, logits.view())->view(), normalized,
                                        chosen->view(), out);
          },
          start, 2 * kEps));
    }
  }
}

// Numbers that are none do no harm: some experts are chosen, each once.
TEST_P(ExpertOps, LogitsThatAreNoNumbersChooseExpertsThatThereAre) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto logits = OnDevice(device_.get(), MatrixOf(1, 3, {nan, nan, nan}).view());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto chosen, device_->NewBuffer<int32_t>(1, 2));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto share, device_->NewMatrix(1, 2));
  ASSERT_OK(device_->ChooseExperts(logits->view(), false, chosen->view(), share->view()));
  EXPECT_THAT(ElementsOf(*device_, chosen->view()), ElementsAre(0, 1));
}

TEST_P(ExpertOps, RowsAreGatheredAndAddedBack) {
  const Matrix x = Random(9, 33, 1), y = Random(4, 33, 2), start = Random(9, 33, 3);
  const std::vector<int32_t> rows = {8, 0, 3, 4};
  const std::vector<float> scale = {0.5f, 0.25f, -1, 0.3f};
  const auto on_device = OnDevice(device_.get(), x.view());
  const auto at = VectorOn<int32_t>(*device_, rows);
  const auto gathered = OnDevice(device_.get(), y.view());
  ASSERT_OK(device_->GatherRows(on_device->view(), at->span(), gathered->view()));
  const Matrix found = OnHost(*device_, gathered->view());
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 33; ++c) {
      EXPECT_EQ(found.Row(r)[c], x.Row(rows[static_cast<size_t>(r)])[c]);
    }
  }
  // A product and a sum of values below 2.
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) {
        return device.ScatterAddRows(OnDevice(&device, y.view())->view(),
                                     VectorOn<int32_t>(device, rows)->span(),
                                     VectorOn<float>(device, scale)->span(), out);
      },
      start, 4 * kEps));
  const auto sum = OnDevice(device_.get(), start.view());
  ASSERT_OK(device_->ScatterAddRows(gathered->view(), at->span(),
                                    VectorOn<float>(*device_, scale)->span(), sum->view()));
  const Matrix added = OnHost(*device_, sum->view());
  EXPECT_EQ(added.Row(1)[5], start.Row(1)[5]) << "a row that is not named";
  EXPECT_NEAR(added.Row(8)[5], start.Row(8)[5] + 0.5f * x.Row(8)[5], 1e-6);
}

TEST_P(ExpertOps, SigmoidOfRowsAgrees) {
  const Matrix gate = Random(1, 21, 1, 12), start = Random(21, 50, 2);
  EXPECT_TRUE(Agrees(
      [&](Device& device, DeviceView<float> out) {
        return device.SigmoidRows(OnDevice(&device, gate.view())->span(), out);
      },
      start, 3 * kEps));
  const auto x = OnDevice(device_.get(), MatrixOf(1, 1, {3}).view());
  ASSERT_OK(device_->SigmoidRows(VectorOn<float>(*device_, {std::log(2.0f)})->span(), x->view()));
  EXPECT_THAT(ElementsOf(*device_, x->view()), ElementsAre(FloatNear(2, 1e-6f)));
}

TEST_P(ExpertOps, ShapesThatDoNotFitAreRefused) {
  const auto x = OnDevice(device_.get(), Random(4, 8, 1).view());
  const auto y = OnDevice(device_.get(), Random(2, 8, 2).view());
  const auto rows = VectorOn<int32_t>(*device_, {1, 4});
  const auto inside = VectorOn<int32_t>(*device_, {1, 3});
  const auto scale = VectorOn<float>(*device_, {1, 1});
  // What lies in device memory may be found wrong later.
  const auto refuses = [&](absl::Status status) {
    if (status.ok()) status = device_->Synchronize();
    return status.code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refuses(device_->GatherRows(x->view(), rows->span(), y->view())));
  EXPECT_OK(device_->GatherRows(x->view(), inside->span(), y->view()));
  EXPECT_FALSE(device_->GatherRows(x->view(), inside->span(), y->view().Cols(0, 7)).ok());
  EXPECT_TRUE(refuses(device_->ScatterAddRows(y->view(), rows->span(), scale->span(), x->view())));
  EXPECT_FALSE(
      device_->ScatterAddRows(y->view(), inside->span(), scale->span().Part(0, 1), x->view()).ok());
  EXPECT_FALSE(device_->SigmoidRows(scale->span(), x->view()).ok());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto chosen, device_->NewBuffer<int32_t>(4, 9));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto share, device_->NewMatrix(4, 9));
  EXPECT_FALSE(device_->ChooseExperts(x->view(), false, chosen->view(), share->view()).ok());
}

INSTANTIATE_TEST_SUITE_P(Devices, ExpertOps, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
