#include "base/failure.h"

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

TEST(FailureTest, CarriesItsReasonBesideCodeAndText) {
  const absl::Status status = CorruptFailure("ST_OVERLAP", "a lies inside b");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "a lies inside b");
  EXPECT_EQ(ReasonOf(status), "ST_OVERLAP");
  EXPECT_EQ(InvalidFailure("A", "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PreconditionFailure("A", "").code(), absl::StatusCode::kFailedPrecondition);
}

TEST(FailureTest, AStatusWithoutAReasonGetsItsCodes) {
  EXPECT_EQ(ReasonOf(absl::UnavailableError("gone")), "UNAVAILABLE");
  EXPECT_EQ(ReasonOf(absl::InternalError("bug")), "INTERNAL");
}

TEST(FailureTest, OnlyWhatMayPassIsTriedAgain) {
  EXPECT_TRUE(IsRetryable(absl::UnavailableError("")));
  EXPECT_TRUE(IsRetryable(absl::DeadlineExceededError("")));
  EXPECT_TRUE(IsRetryable(absl::AbortedError("")));
  EXPECT_FALSE(IsRetryable(absl::InvalidArgumentError("")));
  EXPECT_FALSE(IsRetryable(absl::InternalError("")));
  EXPECT_FALSE(IsRetryable(absl::OkStatus()));
}

}  // namespace
}  // namespace lwq::testing
