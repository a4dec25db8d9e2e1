#include "server/store/leadership.h"

#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/store/memory_store.h"
#include "tests/server/store/store_conformance.h"
#include "tests/testing/failing_store.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

LeaderOptions Options(const std::string& holder) {
  LeaderOptions options;
  options.holder = holder;
  return options;
}

// Stands by on a thread of its own, until it wins or goes.
class Candidate {
 public:
  Candidate(Store* store, SimulatedClock* clock, const LeaderOptions& options)
      : clock_(clock), thread_([=, this] {
          auto won = Leadership::Win(store, clock, options, [this] { return stop_.load(); });
          if (won.ok()) leadership_ = *std::move(won);
          won_ = won.ok();
          ended_ = true;
        }) {}
  ~Candidate() {
    stop_ = true;
    while (!ended_) {
      clock_->Advance(absl::Milliseconds(100));
      absl::SleepFor(absl::Milliseconds(1));
    }
    thread_.join();
  }
  bool won() const { return won_; }
  Leadership& leadership() { return *leadership_; }

 private:
  SimulatedClock* const clock_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> won_{false};
  std::atomic<bool> ended_{false};
  std::unique_ptr<Leadership> leadership_;
  std::thread thread_;
};

class LeadershipTest : public ::testing::Test {
 protected:
  // Simulated time passes in steps that real threads can follow, until `done` or `limit`.
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit) {
    for (absl::Duration t; t < limit; t += absl::Milliseconds(100)) {
      if (done()) return true;
      clock_.Advance(absl::Milliseconds(100));
      absl::SleepFor(absl::Milliseconds(4));
    }
    return done();
  }
  std::unique_ptr<Leadership> Win(const std::string& holder) {
    auto won = Leadership::Win(&store_, &clock_, Options(holder), [] { return false; });
    EXPECT_OK(won);
    return *std::move(won);
  }
  int64_t LeaseVersion() { return store_.Get(Table::kLeader, "lease")->version; }

  SimulatedClock clock_;
  MemoryStore store_;
};

TEST_F(LeadershipTest, TheFirstServerLeadsAtOnceAndItsCommitsAreTaken) {
  auto leadership = Win("a");
  EXPECT_EQ(leadership->term(), 1);
  FencedStore fenced(&store_, leadership.get());
  EXPECT_OK(fenced.Commit({PutRow("k", "1")}));
  EXPECT_THAT(fenced.Commit({PutRowAt("k", "2", 7)}), FailsWith("VERSION_CONFLICT", _));
  EXPECT_FALSE(leadership->lost());
}

TEST_F(LeadershipTest, WhileTheLeaderRenewsNobodyTakesOver) {
  auto leadership = Win("a");
  Candidate standby(&store_, &clock_, Options("b"));
  const int64_t version = LeaseVersion();
  EXPECT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(60)));
  EXPECT_GE(LeaseVersion(), version + 10);
  EXPECT_FALSE(leadership->lost());
}

TEST_F(LeadershipTest, ALeaderThatIsSilentIsReplacedInUnderTwentySecondsAndItsCommitsAreRefused) {
  // Cut off from the store at first, then back.
  std::atomic<bool> cut{false};
  FaultPlan plan([&](int) { return cut ? Fault::kBefore : Fault::kNone; });
  FailingStore link(&store_, &plan);
  auto old = Leadership::Win(&link, &clock_, Options("old"), [] { return false; });
  ASSERT_OK(old);
  FencedStore old_store(&link, old->get());
  ASSERT_OK(old_store.Commit({PutRow("k", "of the old leader")}));
  std::atomic<int> times_lost{0};
  (*old)->OnLost([&] { ++times_lost; });

  Candidate standby(&store_, &clock_, Options("new"));
  ASSERT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(30)));
  cut = true;
  EXPECT_TRUE(RunUntil([&] { return standby.won(); }, absl::Seconds(20)));
  EXPECT_EQ(standby.leadership().term(), 2);
  FencedStore new_store(&store_, &standby.leadership());
  ASSERT_OK(new_store.Commit({PutRow("k", "of the new leader")}));
  EXPECT_EQ(times_lost, 0);  // it does not know

  cut = false;
  EXPECT_THAT(old_store.Commit({PutRow("k", "late")}), FailsWith("NOT_LEADER", _));
  EXPECT_EQ(store_.Get(Table::kJobs, "k")->value, "of the new leader");
  EXPECT_EQ(times_lost, 1);
  EXPECT_TRUE((*old)->lost());
  EXPECT_THAT(old_store.Commit({PutRow("k", "later")}), FailsWith("NOT_LEADER", _));
  EXPECT_OK(new_store.Commit({PutRow("k", "2")}));
}

TEST_F(LeadershipTest, ALeaderThatIsIdleLearnsOfTheNewTermByRenewing) {
  auto leadership = Win("a");
  Write term{.table = Table::kLeader};
  term.record.key = "term";
  term.record.value = "b";
  ASSERT_OK(store_.Commit({term}));
  EXPECT_TRUE(RunUntil([&] { return leadership->lost(); }, absl::Seconds(5)));
  bool told = false;
  leadership->OnLost([&] { told = true; });
  EXPECT_TRUE(told);
}

TEST_F(LeadershipTest, ALeaseThatIsGivenBackIsTakenAtOnce) {
  Candidate standby(&store_, &clock_, Options("b"));
  ASSERT_TRUE(RunUntil([&] { return standby.won(); }, absl::Seconds(1)));
  Candidate next(&store_, &clock_, Options("c"));
  ASSERT_FALSE(RunUntil([&] { return next.won(); }, absl::Seconds(20)));
  { Win("b"); }  // takes b's term, and gives it back
  EXPECT_TRUE(RunUntil([&] { return next.won(); }, absl::Seconds(2)));
}

TEST_F(LeadershipTest, AServerThatIsStartedAgainDoesNotWaitForItself) {
  auto first = Win("a");
  auto second = Win("a");
  EXPECT_EQ(second->term(), 2);
  // The first one is alive after all: it stands by like any other, and the two do not oust each
  // other for ever.
  ASSERT_TRUE(RunUntil([&] { return first->lost(); }, absl::Seconds(5)));
  LeaderOptions again = Options("a");
  again.is_restart = false;
  Candidate standby(&store_, &clock_, again);
  EXPECT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(30)));
}

TEST_F(LeadershipTest, AStoreThatWasAwayIsNotTheLeadersSilence) {
  std::atomic<bool> away{false}, leader_away{false};
  FaultPlan plan([&](int) { return away ? Fault::kBefore : Fault::kNone; });
  FaultPlan leader_plan([&](int) { return leader_away ? Fault::kBefore : Fault::kNone; });
  FailingStore link(&store_, &plan), leader_link(&store_, &leader_plan);
  auto leadership = Leadership::Win(&leader_link, &clock_, Options("a"), [] { return false; });
  ASSERT_OK(leadership);
  Candidate standby(&link, &clock_, Options("b"));
  ASSERT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(5)));
  away = leader_away = true;
  ASSERT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(60)));
  away = false;  // the leader finds the store a little later
  EXPECT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(4)));
  leader_away = false;
  EXPECT_FALSE(RunUntil([&] { return standby.won(); }, absl::Seconds(30)));
  EXPECT_FALSE((*leadership)->lost());
  EXPECT_GT(plan.num_faults(), 10);
}

// What is in memory may differ from what is in the store: the state has to be read again.
TEST_F(LeadershipTest, AnUncertainCommitEndsTheTerm) {
  auto leadership = Win("a");
  FaultPlan plan(FailNth(1, Fault::kAfter));
  FailingStore link(&store_, &plan);
  FencedStore fenced(&link, leadership.get());
  EXPECT_THAT(fenced.Commit({PutRow("k", "1")}), FailsWith("NOT_LEADER", _));
  EXPECT_TRUE(leadership->lost());
  EXPECT_OK(store_.Get(Table::kJobs, "k"));
}

TEST_F(LeadershipTest, OfManyThatStartAtOnceOneLeads) {
  for (int round = 1; round <= 10; ++round) {
    MemoryStore store;
    std::vector<std::unique_ptr<Candidate>> all;
    for (int i = 0; i < 4; ++i) {
      all.push_back(std::make_unique<Candidate>(&store, &clock_, Options(absl::StrCat(i))));
    }
    const auto num_leaders = [&] {
      int leaders = 0;
      for (auto& one : all) leaders += one->won() && !one->leadership().lost();
      return leaders;
    };
    EXPECT_TRUE(RunUntil([&] { return num_leaders() == 1; }, absl::Seconds(3)));
    EXPECT_FALSE(RunUntil([&] { return num_leaders() > 1; }, absl::Seconds(2)));
  }
}

// Without a thread: nothing happens but by Try and Renew.
TEST_F(LeadershipTest, AStepAtATimeTheLeaseIsRenewedAndTakenOver) {
  lwq::Candidate first(&store_, &clock_, Options("a")), second(&store_, &clock_, Options("b"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto a, first.Try());
  ASSERT_NE(a, nullptr);
  const auto try_second = [&] {
    auto won = second.Try();
    EXPECT_OK(won);
    return *std::move(won);
  };
  EXPECT_EQ(try_second(), nullptr);
  clock_.Advance(absl::Seconds(11));
  a->Renew();
  EXPECT_EQ(try_second(), nullptr);
  clock_.Advance(absl::Seconds(11));
  EXPECT_EQ(try_second(), nullptr);
  clock_.Advance(absl::Seconds(2));
  const auto b = try_second();
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->term(), 2);
  EXPECT_FALSE(a->lost());
  a->Renew();
  EXPECT_TRUE(a->lost());
}

TEST_F(LeadershipTest, StandingByEndsWhenItIsTold) {
  auto leadership = Win("a");
  std::atomic<int> asked{0};
  std::thread time([&] { RunUntil([&] { return asked > 2; }, absl::Seconds(30)); });
  auto won = Leadership::Win(&store_, &clock_, Options("b"), [&] { return ++asked > 2; });
  time.join();
  EXPECT_TRUE(absl::IsCancelled(won.status()));
}

}  // namespace
}  // namespace lwq::testing
