// What is kept of logits that are met a part of the vocabulary at a time, on every device against
// its definition over whole rows in F64, however the vocabulary is cut.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/conformance/judge.h"

namespace lwq::testing {
namespace {

constexpr int64_t kRows = 21;

// What the operations leave of two models' logits.
struct Found {
  std::vector<float> top;
  std::vector<int32_t> best;
  std::vector<double> total, gap;
};

// `cuts`: where parts begin, and the end of the last.
Found SumInParts(Device& device, const Matrix& source, const Matrix& candidate,
                 const std::vector<int64_t>& cuts) {
  const auto p = OnDevice(&device, source.view()), q = OnDevice(&device, candidate.view());
  // Values that the first part must not take over.
  const auto top = VectorOn(device, std::vector<float>(kRows, 1e30f));
  const auto best = VectorOn(device, std::vector<int32_t>(kRows, -7));
  const auto total = VectorOn(device, std::vector<double>(kRows, 1e30));
  const auto gap_top = VectorOn(device, std::vector<float>(kRows, -1e30f));
  const auto gap = VectorOn(device, std::vector<double>(kRows, 1e30));
  const LogitSums sums = {top->span(), best->span(), total->span()};
  const LogitGaps gaps = {gap_top->span(), gap->span()};
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const int64_t first = cuts[i], count = cuts[i + 1] - first;
    const DeviceView<const float> part = p->view().Cols(first, count);
    EXPECT_OK(device.SumLogits(part, first, sums));
    EXPECT_OK(device.SumLogitGaps(part, sums.top, q->view().Cols(first, count), first, gaps));
  }
  return {ElementsOf(device, top->span()), ElementsOf(device, best->span()),
          ElementsOf(device, total->span()), ElementsOf(device, gap->span())};
}

class LogitOps : public DeviceTest {};

TEST_P(LogitOps, SumsAreThoseOfWholeRowsHoweverTheyAreCut) {
  const std::vector<std::vector<int64_t>> cuts = {
      {0, 1}, {0, 37}, {0, 1, 5, 37}, {0, 1500}, {0, 512, 1024, 1500}, {0, 7, 1499, 1500}};
  for (const std::vector<int64_t>& cut : cuts) {
    const int64_t cols = cut.back();
    const Matrix p = Random(kRows, cols, 1, 20), q = Random(kRows, cols, 2, 20);
    const Found found = SumInParts(*device_, p, q, cut);
    for (int64_t r = 0; r < kRows; ++r) {
      const size_t at = static_cast<size_t>(r);
      const float* row = p.Row(r);
      const float* largest = std::max_element(row, row + cols);
      double total = 0, gap = 0, size = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const double weight = std::exp(double{row[c]} - *largest);
        total += weight;
        gap += weight * (double{row[c]} - q.Row(r)[c]);
        size += weight * std::abs(double{row[c]} - q.Row(r)[c]);
      }
      EXPECT_EQ(found.top[at], *largest);
      EXPECT_EQ(found.best[at], largest - row);
      // The exponent, below 40, is rounded, and exp errs by a few eps: relative to each term.
      EXPECT_NEAR(found.total[at], total, 48 * kEps * total);
      EXPECT_NEAR(found.gap[at], gap, 48 * kEps * size);
    }
  }
}

TEST_P(LogitOps, TheFirstOfEqualsIsTheLikeliest) {
  Matrix p = Zeros(kRows, 40);
  for (int64_t r = 0; r < kRows; ++r) p.Row(r)[r] = p.Row(r)[r + 10] = 1;
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{0, 40}, {0, 15, 20, 40}}) {
    const Found found = SumInParts(*device_, p, p, cuts);
    for (int32_t r = 0; r < kRows; ++r) EXPECT_EQ(found.best[static_cast<size_t>(r)], r);
    EXPECT_THAT(found.gap, ::testing::Each(0.0));
  }
}

TEST_P(LogitOps, WhatHasNoProbabilityHasNoShare) {
  Matrix p = Zeros(kRows, 9), q = Zeros(kRows, 9);
  for (int64_t r = 0; r < kRows; ++r) p.Row(r)[3] = -1e30f;
  EXPECT_THAT(SumInParts(*device_, p, q, {0, 9}).gap, ::testing::Each(0.0));
}

TEST_P(LogitOps, BitsAreTheSameForAnyThreads) {
  const Matrix p = Random(kRows, 900, 1, 20), q = Random(kRows, 900, 2, 20);
  const Found one = SumInParts(*GetParam()->make(1), p, q, {0, 512, 900});
  for (const int threads : GetParam()->thread_counts) {
    const Found again = SumInParts(*GetParam()->make(threads), p, q, {0, 512, 900});
    EXPECT_EQ(again.total, one.total);
    EXPECT_EQ(again.gap, one.gap);
  }
}

TEST_P(LogitOps, PicksElements) {
  const Matrix host = Random(6, 11, 3);
  const auto m = OnDevice(device_.get(), host.view());
  const auto rows = VectorOn<int32_t>(*device_, {5, 0, 0, 3});
  const auto columns = VectorOn<int32_t>(*device_, {10, 0, 7, 4});
  const auto out = VectorOn<float>(*device_, {0, 0, 0, 0});
  ASSERT_OK(device_->Pick(m->view(), rows->span(), columns->span(), out->span()));
  EXPECT_THAT(
      ElementsOf(*device_, out->span()),
      ::testing::ElementsAre(host.Row(5)[10], host.Row(0)[0], host.Row(0)[7], host.Row(3)[4]));
}

TEST_P(LogitOps, WrongShapesAreRefused) {
  const auto m = OnDevice(device_.get(), Zeros(4, 5).view());
  const auto few = VectorOn<float>(*device_, {0, 0, 0});
  const auto top = VectorOn<float>(*device_, {0, 0, 0, 0});
  const auto best = VectorOn<int32_t>(*device_, {0, 0, 0, 0});
  const auto total = VectorOn<double>(*device_, {0, 0, 0, 0});
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_);
  EXPECT_THAT(device_->SumLogits(m->view(), 0, {few->span(), best->span(), total->span()}),
              refused);
  EXPECT_THAT(device_->SumLogitGaps(m->view(), top->span(), m->view().Cols(0, 4), 0,
                                    {top->span(), total->span()}),
              refused);
  const auto outside = VectorOn<int32_t>(*device_, {0, 1, 2, 5});
  // What lies on the device may be looked at later.
  absl::Status picked = device_->Pick(m->view(), best->span(), outside->span(), top->span());
  if (picked.ok()) picked = device_->Synchronize();
  EXPECT_THAT(picked, refused);
}

INSTANTIATE_TEST_SUITE_P(Devices, LogitOps, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing
