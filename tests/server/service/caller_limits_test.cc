#include "server/service/caller_limits.h"

#include "gmock/gmock.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;

class CallerLimitsTest : public ::testing::Test {
 protected:
  SimulatedClock clock_;
  CallerLimits limits_{{.open_calls = 3, .uploads = 2, .calls_per_second = 10}, &clock_};
  const Caller anna_ = {"tokens/anna", "anna", kClient, nullptr};
  const Caller otto_ = {"tokens/otto", "otto", kAdmin, nullptr};
};

TEST_F(CallerLimitsTest, OneHasSoManyOpenAndTheOthersTheirOwn) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(limits_.Enter(anna_, "WatchJob"));
  EXPECT_THAT(limits_.Enter(anna_, "GetJob"),
              FailsWith("QUOTA_EXCEEDED", HasSubstr("tokens/anna has 3 calls open")));
  EXPECT_OK(limits_.Enter(otto_, "GetJob"));
  limits_.Leave(anna_, "WatchJob");
  EXPECT_OK(limits_.Enter(anna_, "GetJob"));
  EXPECT_FALSE(limits_.Enter(anna_, "GetJob").ok());
}

TEST_F(CallerLimitsTest, UploadsHaveALimitOfTheirOwn) {
  ASSERT_OK(limits_.Enter(anna_, "WriteBlob"));
  ASSERT_OK(limits_.Enter(anna_, "WriteBlob"));
  EXPECT_THAT(limits_.Enter(anna_, "WriteBlob"),
              FailsWith("QUOTA_EXCEEDED", HasSubstr("2 uploads")));
  EXPECT_OK(limits_.Enter(anna_, "GetJob"));
  limits_.Leave(anna_, "WriteBlob");
  limits_.Leave(anna_, "GetJob");
  EXPECT_OK(limits_.Enter(anna_, "WriteBlob"));
}

TEST_F(CallerLimitsTest, CallsASecondAreTwiceAsManyAtOnceAndNoMoreInTheLongRun) {
  const auto calls = [&](const Caller& caller) {
    int number = 0;
    for (int i = 0; i < 100; ++i) {
      const absl::Status entered = limits_.Enter(caller, "GetJob");
      if (!entered.ok()) {
        EXPECT_THAT(entered, FailsWith("OVERLOADED", HasSubstr("10 calls a second")));
        break;
      }
      limits_.Leave(caller, "GetJob");
      ++number;
    }
    return number;
  };
  EXPECT_EQ(calls(anna_), 20);
  EXPECT_EQ(calls(anna_), 0);
  EXPECT_EQ(calls(otto_), 20);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(calls(anna_), 10);
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(calls(anna_), 20);
}

TEST_F(CallerLimitsTest, WorkersAreNotLimited) {
  const Caller worker = {"spiffe://lwq/worker/all", "", kWorker, nullptr};
  for (int i = 0; i < 100; ++i) EXPECT_OK(limits_.Enter(worker, "WriteBlob"));
}

}  // namespace
}  // namespace lwq::testing
