// Bad workers, bad results and lost blobs: what they may cost, and that no job pays for them that
// another worker can do.
#include "server/dispatch/work_estimate.h"
#include "tests/server/dispatch/scenario.h"

namespace lwq {
namespace {

using ::lwq::testing::Count;
using ::lwq::testing::FailsWith;
using ::lwq::testing::Scenario;
using ::testing::_;
using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000;

// Hands tasks to both workers by turns: "bad" fails each with `reason`, "good" does its own.
void WorkWithABadWorker(Scenario& s, const std::string& reason, absl::StatusCode code) {
  s.Register("bad", "incarnation-bad");
  s.Register("good", "incarnation-good");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  int failures = 0;
  for (int round = 0; round < 200 && !IsTerminal(s.StateOf("jobs/a")); ++round) {
    for (const v1::Lease& lease : s.Lease("bad")) {
      ASSERT_OK(s.Fail("bad", lease, reason, code));
      ++failures;
    }
    for (const v1::Lease& lease : s.Lease("good")) ASSERT_OK(s.Complete("good", lease));
    s.now_us += kSecond;
  }
  EXPECT_GT(failures, 0);
}

TEST(BadWorkers, OneWithoutTheModelsDirectoryFailsNoJob) {
  Scenario s(3);
  WorkWithABadWorker(s, "MODEL_CHANGED", absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(BadWorkers, OneWithAFullDiskFailsNoJob) {
  Scenario s(3);
  WorkWithABadWorker(s, "RESOURCE_EXHAUSTED", absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(BadWorkers, OneThatMisreadsTheModelFailsNoJob) {
  Scenario s(3);
  WorkWithABadWorker(s, "ST_OVERLAP", absl::StatusCode::kDataLoss);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

// It says so of blobs that are whole: its memory, its disk or its network is at fault.
TEST(BadWorkers, OneThatCannotReadItsInputsFailsNoJob) {
  for (const char* reason : {"BLOB_CORRUPT", "BLOB_MISSING", "EVIDENCE_MISSING"}) {
    SCOPED_TRACE(reason);
    Scenario s(3);
    WorkWithABadWorker(s, reason, absl::StatusCode::kDataLoss);
    EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
    EXPECT_TRUE(s.state().workers().at("bad").cordoned());
  }
}

TEST(BadWorkers, AnInputThatNoWorkerCanReadFailsTheJobWithItsReason) {
  Scenario s(3);
  s.Register("only", "incarnation-o");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  int failures = 0;
  for (int t = 0; t < 600 && !IsTerminal(s.StateOf("jobs/a")); ++t) {
    for (const v1::Lease& lease : s.Lease("only", 8)) {
      if (!lease.spec().has_calibrate()) {
        ASSERT_OK(s.Complete("only", lease));
        continue;
      }
      ASSERT_OK(s.Fail("only", lease, "BLOB_CORRUPT", absl::StatusCode::kDataLoss));
      ++failures;
    }
    s.now_us += kSecond;
    s.Reap();
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
  EXPECT_EQ(s.records["jobs/a"].job().failure().reason(), "BLOB_CORRUPT");
  EXPECT_EQ(failures, 3);
}

TEST(BadWorkers, ATaskThatMayRunAgainDoesSoWhereItFailedWhenNoOtherWorkerIsLeft) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  s.Register("other", "incarnation-o");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Fail("w", s.Lease("w").at(0), "INTERNAL", absl::StatusCode::kInternal));
  for (int i = 0; i < 7; ++i) {  // "other" is never heard of again
    s.now_us += 10 * kSecond;
    s.Reap();
    for (const v1::Lease& lease : s.Lease("w")) ASSERT_OK(s.Complete("w", lease));
  }
  s.Work("w");
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

// Seed 2006 of the simulation: the task was handed out when the worker asked anew, up to 20 s
// later.
TEST(BadWorkers, APollIsWokenForATaskThatOnlyItsOwnWorkerIsLeftFor) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  s.Register("other", "incarnation-o");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  std::vector<v1::Lease> all = s.Lease("w", 8);
  ASSERT_OK(s.Fail("w", all.back(), "INTERNAL", absl::StatusCode::kInternal));
  all.pop_back();
  const int64_t woken = s.woken;
  const auto ten_seconds_later = [&] {
    s.now_us += 10 * kSecond;
    for (const v1::Lease& lease : all) s.Beat("w", lease);
    s.Reap();
  };
  for (int i = 0; i < 5; ++i) {
    ten_seconds_later();
    EXPECT_TRUE(s.Lease("w").empty());
  }
  EXPECT_EQ(s.woken, woken);
  ten_seconds_later();  // for a minute nothing was heard of "other"
  EXPECT_EQ(s.woken, woken + 1);
  EXPECT_EQ(s.Lease("w").size(), 1);
}

TEST(BadWorkers, OneThatAnOperatorCordonedIsNotWaitedFor) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  s.Register("cordoned", "incarnation-c");
  ASSERT_OK(s.Run([](Draft& draft) {
    draft.EditWorker("cordoned")->set_cordoned(true);
    return absl::OkStatus();
  }));
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(
      s.Fail("w", s.Lease("w").at(0), "MODEL_CHANGED", absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
}

TEST(BadWorkers, WhatEveryWorkerRefusesFailsTheJobWithItsReason) {
  Scenario s(3);
  s.Register("u", "incarnation-u");
  s.Register("v", "incarnation-v");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  for (const char* worker : {"u", "v"}) {
    ASSERT_FALSE(IsTerminal(s.StateOf("jobs/a")));
    for (const v1::Lease& lease : s.Lease(worker, 8)) {
      ASSERT_OK(s.Fail(worker, lease, "MODEL_CHANGED", absl::StatusCode::kFailedPrecondition));
    }
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
  EXPECT_EQ(s.records["jobs/a"].job().failure().reason(), "MODEL_CHANGED");
}

TEST(BadResults, AnEmptyQuantizeOutputIsRefusedAndNotCached) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("rtn", "zd", 1000)));
  std::vector<v1::Lease> leases = s.Lease("w");
  while (!leases.at(0).spec().has_quantize()) {
    ASSERT_OK(s.Complete("w", leases.at(0)));
    leases = s.Lease("w");
  }
  EXPECT_THAT(s.CompleteWith("w", leases.at(0), v1::TaskOutput()), FailsWith("OUTPUT_INVALID", _));
  for (const auto& [blob, key] : s.state().tasks().at(leases.at(0).task()).product_keys()) {
    EXPECT_EQ(s.cache.count(key), 0u);
  }
  EXPECT_OK(s.Complete("w", leases.at(0)));
}

// The blob of a quantized layer is gone: every task that reads it fails by BLOB_MISSING.
TEST(LostBlobs, SeenByFourWorkersIsOneRebuild) {
  Scenario s(4);
  for (const char* w : {"a", "b", "c", "d", "e"}) s.Register(w, absl::StrCat("incarnation-", w));
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  std::vector<v1::Lease> scores;
  for (int i = 0; i < 100 && scores.size() < 4; ++i) {
    for (const v1::Lease& lease : s.Lease("e")) {
      if (lease.spec().has_score()) {
        ASSERT_OK(s.Release("e", lease));
        for (const char* w : {"a", "b", "c", "d"}) {
          for (const v1::Lease& l : s.Lease(w)) scores.push_back(l);
        }
      } else {
        ASSERT_OK(s.Complete("e", lease));
      }
    }
  }
  ASSERT_EQ(scores.size(), 4u);
  const char* const workers[] = {"a", "b", "c", "d"};
  for (const v1::TaskInput& input : scores[0].inputs()) {
    if (input.role() == "quantize") s.lost_blobs.insert(input.output().blobs(0).blob().sha256());
  }
  s.rebuild_later = true;  // the rebuild takes longer than the four failures
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(s.Fail(workers[i], scores[i], "BLOB_MISSING", absl::StatusCode::kNotFound));
  }
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::RUNNING);
  s.rebuild_later = false;
  s.RebuildAll();
  s.lost_blobs.clear();  // written anew
  s.Work("e");
  EXPECT_EQ(s.num_rebuilds, 1);
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
}

TEST(LostBlobs, ATaskWaitsLongerEachTimeWhileTheServerLooks) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  s.rebuild_later = true;
  int failures = 0;
  for (int t = 0; t < 17; ++t) {
    for (const v1::Lease& lease : s.Lease("w", 8)) {
      if (!lease.spec().has_calibrate()) {
        ASSERT_OK(s.Complete("w", lease));
        continue;
      }
      ASSERT_OK(s.Fail("w", lease, "BLOB_MISSING", absl::StatusCode::kNotFound));
      ++failures;
    }
    s.now_us += kSecond;
  }
  EXPECT_EQ(failures, 5) << "after 0, 1, 3, 7 and 15 s";
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::RUNNING);
}

TEST(LostBlobs, OfATaskThatTwoJobsShareIsComputedAgain) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  std::vector<v1::Lease> leases = s.Lease("w");
  while (!leases.at(0).spec().has_score()) {
    ASSERT_OK(s.Complete("w", leases.at(0)));
    leases = s.Lease("w");
  }
  // What the score reads is gone.
  std::string lost;
  for (const v1::TaskInput& input : leases.at(0).inputs()) {
    if (input.role() == "quantize") lost = input.output().blobs(0).blob().sha256();
  }
  ASSERT_NE(lost, "");
  s.lost_blobs.insert(lost);
  ASSERT_OK(s.Fail("w", leases.at(0), "BLOB_MISSING", absl::StatusCode::kNotFound));
  bool again = false;
  for (int t = 0; t < 60; ++t) {
    for (const v1::Lease& lease : s.Lease("w")) {
      if (lease.spec().has_quantize() && !again) {
        again = true;
        s.lost_blobs.clear();  // written anew
      }
      EXPECT_TRUE(again || !lease.spec().has_score()) << "handed out without its input";
      ASSERT_OK(s.Complete("w", lease));
    }
    s.now_us += kSecond;
  }
  EXPECT_TRUE(again) << "the layer whose blob is gone was not computed again";
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::SUCCEEDED);
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
}

// Of two jobs that share a layer one measures plans as well, so it has calibrated over more text.
// Its calibration goes with it, and what the layer was made from with that.
TEST(LostBlobs, OfATaskWhoseInputsNobodyMakesAnyMoreIsComputedFromOthers) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  s.trial_bits["jobs/a"] = {4};
  const auto next_score = [&] {
    std::vector<v1::Lease> leases = s.Lease("w");
    while (!leases.at(0).spec().has_score()) {
      EXPECT_OK(s.Complete("w", leases.at(0)));
      leases = s.Lease("w");
    }
    return leases.at(0);
  };
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Release("w", next_score()));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/c", s.Spec("gptq", "kl", 900)));
  ASSERT_OK(s.Run([](Draft& draft) { return CancelJob(draft, "jobs/a"); }));
  ASSERT_EQ(s.StateOf("jobs/a"), v1::Job::CANCELLED);
  const v1::Lease score = next_score();
  for (const v1::TaskInput& input : score.inputs()) {
    if (input.role() != "quantize") continue;
    s.lost_blobs.insert(input.output().blobs(0).blob().sha256());
  }
  ASSERT_EQ(s.lost_blobs.size(), 1);
  ASSERT_OK(s.Fail("w", score, "BLOB_MISSING", absl::StatusCode::kNotFound));
  s.now_us += kSecond;
  for (const v1::Lease& lease : s.Lease("w", 8)) {
    if (lease.spec().has_quantize()) s.lost_blobs.clear();  // written anew
    ASSERT_OK(s.Complete("w", lease));
  }
  for (int t = 0; t < 60; ++t) {
    s.Work("w");
    s.now_us += kSecond;
  }
  EXPECT_EQ(s.StateOf("jobs/b"), v1::Job::SUCCEEDED);
  EXPECT_EQ(s.StateOf("jobs/c"), v1::Job::SUCCEEDED);
}

TEST(BadWorkers, OneThatKeepsFailingWhatOthersDoIsCordoned) {
  Scenario s(3);
  WorkWithABadWorker(s, "MODEL_CHANGED", absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(s.state().workers().at("bad").cordoned());
  EXPECT_FALSE(s.state().workers().at("good").cordoned());
  ASSERT_OK(s.Submit("jobs/b", s.Spec("rtn", "zd", 1000)));
  EXPECT_TRUE(s.Lease("bad").empty());
  s.Register("bad", "incarnation-mended");
  EXPECT_FALSE(s.Lease("bad").empty());
}

TEST(BadWorkers, ATaskThatWaitsForAnotherWorkerFailsWhenThatOneIsLost) {
  Scenario s(3);
  s.Register("bad", "incarnation-bad");
  s.Register("good", "incarnation-good");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  for (const v1::Lease& lease : s.Lease("bad", 8)) {
    ASSERT_OK(s.Fail("bad", lease, "MODEL_CHANGED", absl::StatusCode::kFailedPrecondition));
  }
  EXPECT_FALSE(IsTerminal(s.StateOf("jobs/a")));
  s.now_us += 61 * kSecond;  // "good" never asks again
  s.Reap();
  EXPECT_EQ(s.StateOf("jobs/a"), v1::Job::FAILED);
}

TEST(BadWorkers, ATaskGoesOnlyToWorkersThatReadTheModelsFamily) {
  Scenario s(3);
  s.families = {"mistral"};
  s.Register("v", "incarnation-v");
  s.families = {"llama"};
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  EXPECT_TRUE(s.Lease("v").empty());
  EXPECT_FALSE(s.Lease("w").empty());
}

TEST(BadWorkers, ATaskGoesOnlyToWorkersThatKnowItsKind) {
  Scenario s(3);
  s.without_kind = "preflight";
  s.Register("v", "incarnation-v");
  s.without_kind = "";
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  for (const v1::Lease& lease : s.Lease("v", 8)) EXPECT_FALSE(lease.spec().has_preflight());
  EXPECT_TRUE(s.Lease("w").at(0).spec().has_preflight());
}

TEST(Counts, ATaskThatTwoJobsShareCountsOnce) {
  Scenario s(3);
  s.Register("w", "incarnation-w");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  ASSERT_OK(s.Submit("jobs/b", s.Spec("gptq", "kl", 900)));
  const size_t runs = s.Work("w").size();
  EXPECT_EQ(s.counted[v1::TaskEvent::LEASED], static_cast<int>(runs));
  EXPECT_EQ(s.counted[v1::TaskEvent::DONE], static_cast<int>(runs));
}

// What is derived from the records is what counting them all gives, after whatever happened.
TEST(Counts, AreThoseOfTheRecords) {
  Scenario s(2);
  s.Register("w", "incarnation-w");
  std::vector<v1::Lease> held;
  for (int i = 0; i < 60; ++i) {
    if (i % 12 == 0) {
      ASSERT_OK(s.Submit(absl::StrCat("jobs/j", i), s.Spec("gptq", i % 24 ? "kl" : "zd", 1000)));
    }
    for (const v1::Lease& lease : s.Lease("w", 2)) held.push_back(lease);
    if (i % 7 == 3) s.Run([&](Draft& d) { return CancelJob(d, "jobs/j0"); }).IgnoreError();
    if (!held.empty()) {
      if (i % 5 == 4) {
        s.Fail("w", held.back(), "STORE_UNAVAILABLE").IgnoreError();
      } else {
        s.Complete("w", held.back()).IgnoreError();
      }
      held.pop_back();
    }
    std::map<std::string, int> ready, leased;
    size_t due = 0;
    for (const auto& [key, task] : s.state().tasks()) {
      if (task.state() == v1::TaskRecord::LEASED) ++leased[task.kind()];
      if (task.state() == v1::TaskRecord::READY) ++ready[task.kind()];
      due += task.state() == v1::TaskRecord::READY && task.ready_us() <= s.now_us &&
             std::any_of(task.jobs().begin(), task.jobs().end(), [&](const std::string& job) {
               return s.StateOf(job) != v1::Job::CANCELLING;
             });
    }
    for (const auto& [kind, n] : s.state().counts().ready) EXPECT_EQ(n, ready[kind]) << kind;
    for (const auto& [kind, n] : s.state().counts().leased) EXPECT_EQ(n, leased[kind]) << kind;
    EXPECT_EQ(s.state().ready().size(), static_cast<int64_t>(due));
    EXPECT_EQ(s.state().LeasesOf("w").size(), s.state().leases().size());
    s.now_us += kSecond;
  }
}

// What it says is in records, lists and terminals.
TEST(BadWorkers, OneThatTalksIsCutShort) {
  Scenario s(3);
  s.Register("bad", "incarnation-bad");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const std::vector<v1::Lease> leases = s.Lease("bad");
  ASSERT_FALSE(leases.empty());
  v1::FailTaskRequest request;
  request.set_worker_id("bad");
  request.set_incarnation("incarnation-bad");
  request.set_task(leases[0].task());
  request.set_epoch(leases[0].epoch());
  request.mutable_failure()->set_reason("\x1b[31mred");
  request.mutable_failure()->set_message("a\xff" + std::string(3 << 20, 'x'));
  request.mutable_failure()->set_code(static_cast<int>(absl::StatusCode::kInternal));
  ASSERT_OK(s.Run([&](Draft& draft) { return FailTask(draft, request); }));
  const v1::Failure& kept = s.state().tasks().at(leases[0].task()).failure();
  EXPECT_EQ(kept.reason(), "INTERNAL");
  EXPECT_LE(kept.message().size(), 4096u + 3u);
  EXPECT_EQ(kept.message().substr(0, 4), "a\xef\xbf\xbd");
}

// They are in answers about the job, which have to be messages.
TEST(Transitions, WhatAWorkerSaysInAHeartbeatIsCut) {
  Scenario s;
  s.Register("w", "incarnation-1");
  ASSERT_OK(s.Submit("jobs/a", s.Spec("gptq", "kl", 1000)));
  const v1::Lease lease = s.Lease("w").at(0);
  s.Beat("w", lease, std::string(3'900'000, 'x'));
  v1::JobRecord job = s.state().jobs().at("jobs/a");
  AddLiveProgress(Draft(s.state(), s.Now()), job);
  EXPECT_LT(job.job().ByteSizeLong(), 100'000u);
  EXPECT_EQ(job.job().progress().running(0).waits_for(), std::string(512, 'x'));
}

}  // namespace
}  // namespace lwq
