#include "base/failure_details.h"

#include "base/failure.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(FailureDetailsTest, FieldsAndFactsTravelBesideTheReason) {
  absl::Status status = InvalidFailure("FIELD_INVALID", "two fields");
  AddFieldViolation("b.c", "too small", &status);
  AddFieldViolation("a", "missing", &status);
  AddFieldViolation("a", "empty", &status);
  AddFact("smallest_budget", "2.4bpw", &status);
  const std::vector<FieldViolation> violations = FieldViolationsOf(status);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "a");
  EXPECT_EQ(violations[0].description, "empty");
  EXPECT_EQ(violations[1].field, "b.c");
  EXPECT_EQ(FactsOf(status), (std::map<std::string, std::string>{{"smallest_budget", "2.4bpw"}}));
  EXPECT_EQ(ReasonOf(status), "FIELD_INVALID");
}

TEST(FailureDetailsTest, NothingIsAddedToSuccess) {
  absl::Status status;
  AddFact("name", "value", &status);
  AddFieldViolation("a", "b", &status);
  EXPECT_TRUE(FactsOf(status).empty());
  EXPECT_TRUE(FieldViolationsOf(status).empty());
}

}  // namespace
}  // namespace lwq
