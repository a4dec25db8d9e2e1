// Each collector against its definition, on numbers that can be checked by hand or in double.
#include <algorithm>
#include <cmath>

#include "tests/testing/collected_evidence.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/evidence/collector.h"
#include "worker/engine/evidence/input_rows.h"

namespace lwq {
namespace {

using testing::CollectedEvidence;
using testing::FailsWith;

class CollectorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 2}));
  }

  // Shows `x` to the collectors in two parts, as input `input`.
  absl::Status Observe(Collection& collection, size_t input, const Matrix& x, int64_t first_part) {
    LWQ_ASSIGN_OR_RETURN(auto on_device, device_->NewMatrix(x.rows(), x.cols()));
    LWQ_RETURN_IF_ERROR(device_->Upload(x.view(), on_device->view()));
    LWQ_RETURN_IF_ERROR(collection.ObserveInput(input, on_device->Rows(0, first_part)));
    return collection.ObserveInput(input, on_device->Rows(first_part, x.rows() - first_part));
  }

  std::unique_ptr<Device> device_;
  // The second is not shown: an input that no token reaches.
  const std::vector<InputSpec> inputs_ = {{"seen", 5}, {"unseen", 2}};
};

Matrix SmallInput() {
  Matrix x(300, 5);  // more than one block of rows
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) {
      x.Row(r)[c] = static_cast<float>((r * 7 + c * 3) % 11 - 5) * (c == 4 ? 100.0f : 0.25f);
    }
  }
  return x;
}

TEST_F(CollectorsTest, InputsAreSummedChannelByChannelAndPairByPair) {
  LWQ_ASSERT_OK_AND_ASSIGN(Collection collection,
                           Collection::Find({"channel-statistics", "second-moments"}));
  EXPECT_TRUE(collection.watches_inputs());
  EXPECT_FALSE(collection.watches_directions());
  ASSERT_OK(collection.Begin({device_.get(), ComputeType::kF32, inputs_}));
  const Matrix x = SmallInput();
  ASSERT_OK(Observe(collection, 0, x, 130));
  CollectedEvidence evidence(device_.get());
  ASSERT_OK(collection.Finish(evidence));

  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix table, evidence.Table("channel-statistics", inputs_[0], kNumChannelRows));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix moments, evidence.Table("second-moments", inputs_[0], inputs_[0].features));
  ASSERT_EQ(table.rows(), kNumChannelRows);
  for (int64_t i = 0; i < 5; ++i) {
    double largest = 0, magnitude = 0;
    for (int64_t r = 0; r < x.rows(); ++r) {
      largest = std::max(largest, std::abs(double{x.Row(r)[i]}));
      magnitude += std::abs(double{x.Row(r)[i]});
    }
    EXPECT_EQ(table.Row(kLargestMagnitude)[i], static_cast<float>(largest));
    EXPECT_EQ(table.Row(kMeanMagnitude)[i], static_cast<float>(magnitude / 300));
    for (int64_t j = 0; j <= i; ++j) {
      double product = 0;
      for (int64_t r = 0; r < x.rows(); ++r) product += double{x.Row(r)[i]} * x.Row(r)[j];
      // Multiples of 1/16 below 2^24: F32 sums of them are exact.
      EXPECT_EQ(moments.Row(i)[j], static_cast<float>(product)) << i << ", " << j;
      if (i == j) {
        EXPECT_EQ(table.Row(kMeanSquare)[i], static_cast<float>(product / 300));
      }
    }
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix unseen, evidence.Table("channel-statistics", inputs_[1], kNumChannelRows));
  EXPECT_EQ(unseen.Row(kMeanSquare)[1], 0) << "nothing seen is zero, not a quotient of zeros";
}

// The first 128 as they are; of more, each of them a row of the input, the same however the text
// was cut, and from all over it.
TEST_F(CollectorsTest, RowsAreDrawnFromAllTokensAlike) {
  const Matrix x = [] {
    Matrix rows(1000, 5);
    for (int64_t r = 0; r < rows.rows(); ++r)
      std::fill_n(rows.Row(r), 5, static_cast<float>(r + 1));
    return rows;
  }();
  std::vector<std::vector<float>> drawn;
  for (const int64_t first_part : {100, 730}) {
    LWQ_ASSERT_OK_AND_ASSIGN(Collection collection, Collection::Find({"input-rows"}));
    ASSERT_OK(collection.Begin({device_.get(), ComputeType::kF32, inputs_}));
    ASSERT_OK(Observe(collection, 0, x, first_part));
    CollectedEvidence evidence(device_.get());
    ASSERT_OK(collection.Finish(evidence));
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix rows,
                             evidence.Table("input-rows", inputs_[0], kNumInputRows));
    std::vector<float>& found = drawn.emplace_back();
    for (int64_t r = 0; r < rows.rows(); ++r) {
      found.push_back(rows.Row(r)[0]);
      EXPECT_EQ(rows.Row(r)[4], rows.Row(r)[0]);
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix unseen,
                             evidence.Table("input-rows", inputs_[1], kNumInputRows));
    EXPECT_EQ(unseen.Row(127)[1], 0);
  }
  EXPECT_EQ(drawn[0], drawn[1]);
  std::sort(drawn[0].begin(), drawn[0].end());
  EXPECT_EQ(std::adjacent_find(drawn[0].begin(), drawn[0].end()), drawn[0].end()) << "none twice";
  // Of 128 of 1000 drawn alike, 64 lie in either half, give or take 5; five times that is allowed.
  const auto half =
      std::count_if(drawn[0].begin(), drawn[0].end(), [](float v) { return v > 500; });
  EXPECT_NEAR(static_cast<double>(half), 64, 25);
}

// An expert's moments go when its tokens are through; those of one that no token came to are zero.
TEST_F(CollectorsTest, RoutedInputsAreGivenAsTheyFinish) {
  const std::vector<InputSpec> inputs = {{"all", 5}, {"experts.0", 5, true}, {"experts.1", 5, true}};
  LWQ_ASSERT_OK_AND_ASSIGN(Collection collection, Collection::Find({"second-moments"}));
  ASSERT_OK(collection.Begin({device_.get(), ComputeType::kF32, inputs}));
  const Matrix x = SmallInput();
  ASSERT_OK(Observe(collection, 1, x, 130));
  CollectedEvidence evidence(device_.get());
  ASSERT_OK(collection.FinishInput(1, evidence));
  ASSERT_OK(collection.FinishInput(2, evidence));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix moments, evidence.Table("second-moments", inputs[1], 5));
  double square = 0;
  for (int64_t r = 0; r < x.rows(); ++r) square += double{x.Row(r)[4]} * x.Row(r)[4];
  EXPECT_EQ(moments.Row(4)[4], static_cast<float>(square));
  EXPECT_EQ(evidence.values.at(RoutedTokensName(inputs[1])), 300);
  EXPECT_EQ(evidence.values.at(RoutedTokensName(inputs[2])), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix none, evidence.Table("second-moments", inputs[2], 5));
  EXPECT_EQ(none.Row(4)[4], 0);
  EXPECT_FALSE(evidence.Table("second-moments", inputs[0], 5).ok()) << "not finished yet";
  CollectedEvidence rest(device_.get());
  ASSERT_OK(collection.Finish(rest));
  EXPECT_OK(rest.Table("second-moments", inputs[0], 5));
  EXPECT_FALSE(rest.Table("second-moments", inputs[1], 5).ok()) << "given already";
  EXPECT_FALSE(rest.Table("second-moments", inputs[2], 5).ok());
  EXPECT_TRUE(rest.values.empty());
}

TEST_F(CollectorsTest, DirectionsAreMeansOfCosinesAndOfLastTokensAngles) {
  LWQ_ASSERT_OK_AND_ASSIGN(Collection collection,
                           Collection::Find({"layer-angle", "layer-cosine"}));
  EXPECT_FALSE(collection.watches_inputs());
  TokenBatch batch;
  batch.Add({1, 2, 3});
  batch.Add({4, 5});
  batch.Add({6});
  ASSERT_OK(collection.Begin({device_.get(), ComputeType::kF32, inputs_}));
  // Last tokens: the same direction (a rounding past one), across, opposite.
  const double cosines[] = {0.5, 0.5, 1.0000000001, -0.25, 0, -1};
  ASSERT_OK(collection.ObserveDirections(batch, cosines));
  CollectedEvidence evidence(device_.get());
  ASSERT_OK(collection.Finish(evidence));
  EXPECT_NEAR(evidence.values.at("layer-cosine"), (0.5 + 0.5 + 1.0 - 0.25 - 1) / 6, 1e-9);
  EXPECT_NEAR(evidence.values.at("layer-angle"), (0 + 0.5 + 1) / 3, 1e-12);
}

TEST_F(CollectorsTest, OfTheHeadOnlyInputsAreWatched) {
  LWQ_ASSERT_OK_AND_ASSIGN(Collection collection,
                           Collection::Find({"channel-statistics", "layer-cosine"}));
  ASSERT_OK(collection.Begin({device_.get(), ComputeType::kF32, inputs_}, /*inputs_only=*/true));
  CollectedEvidence evidence(device_.get());
  ASSERT_OK(collection.Finish(evidence));
  EXPECT_TRUE(evidence.values.empty());
  EXPECT_OK(evidence.Table("channel-statistics", inputs_[0], kNumChannelRows));
}

TEST(Collectors, AreSortedAndFoundByName) {
  absl::string_view before;
  for (const CollectorDef* def : Collectors()) {
    EXPECT_LT(before, def->name);
    before = def->name;
    EXPECT_TRUE(def->watches_inputs || def->watches_directions) << def->name;
  }
  EXPECT_THAT(FindCollector("fisher"),
              FailsWith("EVIDENCE_UNKNOWN", ::testing::HasSubstr("layer-cosine, second-moments")));
}

}  // namespace
}  // namespace lwq
