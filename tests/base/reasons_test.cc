#include "base/reasons.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(ReasonsTest, TheReasonDecidesTheCode) {
  const absl::Status status = Failure(reasons::kStOverlap, "tensors \"a\" and \"b\" overlap");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), "ST_OVERLAP");
  EXPECT_TRUE(HasReason(status, reasons::kStOverlap));
  EXPECT_FALSE(HasReason(status, reasons::kStHole));
}

TEST(ReasonsTest, AStatusWithoutReasonGoesByTheLineOfItsCode) {
  const absl::Status status = absl::UnavailableError("no route");
  EXPECT_TRUE(HasReason(status, reasons::kUnavailable));
  EXPECT_EQ(&ReasonLine(ReasonOf(status), status.code()), &reasons::kUnavailable);
  // Each code that an error can have has a line, so that none is without advice.
  for (int i = 1; i <= 16; ++i) {
    const auto code = static_cast<absl::StatusCode>(i);
    const Reason* reason = FindReason(absl::StatusCodeToString(code));
    ASSERT_NE(reason, nullptr) << absl::StatusCodeToString(code);
    EXPECT_EQ(reason->code, code) << reason->name;
  }
}

TEST(ReasonsTest, AReasonOfANewerProgramGoesByItsCode) {
  EXPECT_EQ(FindReason("QUOTA_OF_2031"), nullptr);
  const Reason& line = ReasonLine("QUOTA_OF_2031", absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(line.blame, Blame::kCapacity);
  EXPECT_EQ(line.retry.attempts, 1) << "space may be there a moment later";
}

// What decides about patience and blame, by name: a line that is edited by mistake shows here.
TEST(ReasonsTest, WhoIsToBlameAndWhatRunsAgain) {
  EXPECT_EQ(reasons::kHostOom.blame, Blame::kCapacity);
  EXPECT_EQ(reasons::kHostOom.retry.attempts, 1);
  EXPECT_TRUE(reasons::kHostOom.retry.counts);
  EXPECT_TRUE(reasons::kBlobCorrupt.retry.remakes_inputs);
  EXPECT_EQ(reasons::kNonFiniteWeights.blame, Blame::kModel);
  EXPECT_EQ(reasons::kNonFiniteWeights.retry.attempts, 0);
  EXPECT_FALSE(reasons::kOverloaded.retry.counts);
  EXPECT_GT(reasons::kStorageFull.retry.attempts, 0);
  EXPECT_LT(reasons::kStorageFull.retry.attempts, reasons::kOverloaded.retry.attempts);
}

}  // namespace
}  // namespace lwq
