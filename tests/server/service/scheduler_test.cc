// Transitions that wait for the store together.
#include "server/service/scheduler.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "gmock/gmock.h"
#include "server/blob/memory_blob_store.h"
#include "server/store/memory_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::_;

// Counts commits; the first waits until it is let go.
class HeldStore : public MemoryStore {
 public:
  absl::Status Commit(const std::vector<Write>& writes) override {
    {
      MutexLock lock(&mu_);
      ++commits_;
      changed_.SignalAll();
      while (held_) changed_.Wait(&mu_);
    }
    if (refuses_) {
      return Failure(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE", "it is away");
    }
    return MemoryStore::Commit(writes);
  }
  void WaitForFirst() {
    MutexLock lock(&mu_);
    while (commits_ == 0) changed_.Wait(&mu_);
  }
  void LetGo(bool refuses) {
    MutexLock lock(&mu_);
    refuses_ = refuses;
    held_ = false;
    changed_.SignalAll();
  }
  int commits() const {
    MutexLock lock(&mu_);
    return commits_;
  }

 private:
  mutable Mutex mu_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mu_) = true;
  int commits_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<bool> refuses_{false};
};

class SchedulerTest : public ::testing::Test {
 protected:
  absl::Status Put(const std::string& worker, const absl::Status& then = absl::OkStatus()) {
    return scheduler_.RunTogether([&](Draft& draft) {
      v1::RegisterWorkerRequest request;
      request.set_worker_id(worker);
      request.set_incarnation("incarnation");
      EXPECT_OK(RegisterWorker(draft, request));
      return then;
    });
  }
  // One commit is held, and meanwhile these come.
  std::vector<absl::Status> PutAll(const std::vector<absl::Status>& thens, bool refuses) {
    std::thread first([&] { Put("first").IgnoreError(); });
    store_.WaitForFirst();
    std::vector<absl::Status> statuses(thens.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < thens.size(); ++i) {
      threads.emplace_back([&, i] { statuses[i] = Put(absl::StrCat("w", i), thens[i]); });
    }
    while (scheduler_.num_waiting() < static_cast<int>(thens.size())) std::this_thread::yield();
    store_.LetGo(refuses);
    first.join();
    for (std::thread& thread : threads) thread.join();
    return statuses;
  }
  bool IsThere(const std::string& worker) {
    bool there = false;
    scheduler_.View([&](const DispatchState& state) { there = state.workers().count(worker) > 0; });
    return there && store_.Get(Table::kWorkers, worker).ok();
  }

  HeldStore store_;
  MemoryBlobStore blobs_;
  ServerMetrics metrics_;
  Executor cpu_{"cpu", 0, 10};
  Scheduler scheduler_{&store_, &blobs_, Clock::Real(), &metrics_, &cpu_, DispatchOptions()};
};

TEST_F(SchedulerTest, WhatWaitsForTheStoreIsOneCommit) {
  for (const absl::Status& status : PutAll(std::vector<absl::Status>(5), false)) EXPECT_OK(status);
  EXPECT_EQ(store_.commits(), 2);
  for (const char* worker : {"first", "w0", "w1", "w2", "w3", "w4"}) EXPECT_TRUE(IsThere(worker));
}

TEST_F(SchedulerTest, OneThatIsRefusedIsNoMatterOfTheOthers) {
  const absl::Status refused = PreconditionFailure("LEASE_LOST", "another has it");
  const auto statuses = PutAll({absl::OkStatus(), refused, absl::OkStatus()}, false);
  EXPECT_OK(statuses[0]);
  EXPECT_THAT(statuses[1], FailsWith("LEASE_LOST", _));
  EXPECT_OK(statuses[2]);
  EXPECT_TRUE(IsThere("w0"));
  EXPECT_FALSE(IsThere("w1"));
  EXPECT_TRUE(IsThere("w2"));
}

TEST_F(SchedulerTest, AStoreThatIsAwayIsToldToEach) {
  for (const absl::Status& status : PutAll(std::vector<absl::Status>(3), true)) {
    EXPECT_THAT(status, FailsWith("STORE_UNAVAILABLE", _));
  }
  EXPECT_EQ(store_.commits(), 2);
  EXPECT_FALSE(IsThere("w0"));
}

// Whoever tried again under the same id would hold the only thread that writes for ever.
TEST_F(SchedulerTest, AnUpdateWhoseRequestIdAnotherCallUsedMeanwhileEnds) {
  store_.LetGo(false);
  const RequestMark mark{.id = "r", .fingerprint = "mine"};
  const auto put_request = [&](const std::string& fingerprint) {
    v1::RequestRecord request;
    request.set_fingerprint(fingerprint);
    request.set_resource("models/m");
    Write write{.table = Table::kRequests};
    write.record.key = mark.id;
    request.SerializeToString(&write.record.value);
    EXPECT_OK(store_.Commit({write}));
  };
  v1::JobRecord ended;
  ended.mutable_job()->set_name("jobs/a");
  ended.mutable_job()->set_state(v1::Job::SUCCEEDED);
  Write row{.table = Table::kJobs};
  row.record.key = "jobs/a";
  ended.SerializeToString(&row.record.value);
  ASSERT_OK(store_.Commit({row}));
  v1::UpdateJobRequest request;
  request.set_name("jobs/a");
  put_request("another's");
  EXPECT_THAT(scheduler_.UpdateJob(request, mark), FailsWith("REQUEST_ID_REUSED", _));
  put_request("mine");
  EXPECT_OK(scheduler_.UpdateJob(request, mark));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string same,
      FindOvertaking(store_, mark, Failure(reasons::kVersionConflict, "another was first")));
  EXPECT_EQ(same, "models/m");
  EXPECT_THAT(FindOvertaking(store_, mark, absl::DataLossError("x")),
              lwq::testing::StatusIs(absl::StatusCode::kDataLoss, _));
  EXPECT_THAT(FindOvertaking(store_, {.id = "s"}, Failure(reasons::kVersionConflict, "x")),
              FailsWith("VERSION_CONFLICT", _));
}

}  // namespace
}  // namespace lwq
