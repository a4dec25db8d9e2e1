// A few hundred seeds of the simulation, each a run of its own; and that it finds what it is there
// to find. One seed again: build/dev/bin/simulate --seed N.
#include "tests/simulation/simulation.h"

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::simulation {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;

constexpr uint64_t kSeeds = 300;

class SimulationTest : public ::testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
};

TEST_F(SimulationTest, NoPromiseIsBrokenUnderAnySeed) {
  std::map<std::string, int64_t> faults;
  int64_t artifacts = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome run = Simulate(seed);
    EXPECT_FALSE(run.broken) << run.how << "\nagain: build/dev/bin/simulate --seed " << seed;
    for (const auto& [fault, count] : run.faults) faults[fault] += count;
    artifacts += run.artifacts;
  }
  // A run whose faults never came, or that had nothing to lose, has shown nothing.
  EXPECT_GT(artifacts, static_cast<int64_t>(kSeeds));
  for (const char* fault : {"server dies",
                            "server dies in a commit",
                            "server is stopped",
                            "server stands still",
                            "takeover",
                            "clock jumps",
                            "worker dies",
                            "worker is stopped",
                            "worker stands still",
                            "second process of a worker",
                            "network is cut",
                            "blob is lost",
                            "blob is changed",
                            "commit fails",
                            "commit is uncertain",
                            "store is full",
                            "read fails",
                            "call of the blob store fails",
                            "request is lost",
                            "reply is lost",
                            "request comes twice",
                            "message is late",
                            "stream is cut",
                            "completion comes too late",
                            "thread gets in between",
                            "collection deletes blobs",
                            "job is cancelled",
                            "job is retried"}) {
    EXPECT_THAT(faults, Contains(Key(fault)));
  }
}

TEST_F(SimulationTest, ASeedIsTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Outcome once = Simulate(seed), again = Simulate(seed);
    EXPECT_EQ(once.trace, again.trace) << seed;
    EXPECT_EQ(once.steps, again.steps) << seed;
  }
  EXPECT_NE(Simulate(1).trace, Simulate(2).trace);
}

// How the first seed that shows the bug shows it.
std::string HowFound(Plant plant, uint64_t seeds) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const Outcome run = Simulate(seed, {.plant = plant});
    if (run.broken) return absl::StrCat("seed ", seed, ": ", run.how);
  }
  return "";
}

TEST_F(SimulationTest, ACommitThatIsNotOneIsFound) {
  EXPECT_NE(HowFound(Plant::kSplitCommits, 1), "");
}

TEST_F(SimulationTest, ALateCommitOfALeaderThatWasReplacedIsFound) {
  EXPECT_NE(HowFound(Plant::kNoFence, 100), "");
}

TEST_F(SimulationTest, APollThatIsNotWokenIsFound) {
  EXPECT_NE(HowFound(Plant::kLostWakeUp, 100), "");
}

TEST_F(SimulationTest, AQuotaThatIsNotKeptIsFound) {
  EXPECT_THAT(HowFound(Plant::kNoQuota, 100), HasSubstr("I9"));
}

TEST_F(SimulationTest, ATenantThatStarvesIsFound) {
  EXPECT_THAT(HowFound(Plant::kStarving, 300), HasSubstr("I11"));
}

}  // namespace
}  // namespace lwq::simulation
