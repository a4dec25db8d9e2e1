// What the worker does of its own: its heartbeats, its reports.
#include "worker/agent.h"

#include <thread>

#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/fake_services.h"
#include "worker/engine/device/reference/reference_device.h"
#include "worker/lease_keeper.h"

namespace lwq::testing {
namespace {

v1::Lease SomeLease() {
  v1::Lease lease;
  lease.set_task("t");
  lease.set_epoch(1);
  return lease;
}

grpc::Status Refused(const std::string& reason) {
  return ToGrpcStatus(Failure(absl::StatusCode::kResourceExhausted, reason, "refused"));
}

// An agent at work against a server that answers as the test says.
class AgentTest : public ::testing::Test {
 protected:
  AgentTest() : directory_(*TempDirectory::Create()), server_(directory_.path()) {
    spdlog::set_level(spdlog::level::off);
  }
  // Runs until `done`, a minute at most.
  void RunUntil(const std::function<bool(FakeWorkers&)>& done) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "reference"}));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto agent,
                             Agent::Create({.server = server_.address(),
                                            .worker_id = "w",
                                            .work_directory = JoinPath(directory_.path(), "work")},
                                           device.get()));
    std::thread run([&] { EXPECT_OK(agent->Run()); });
    const absl::Time end = absl::Now() + absl::Minutes(1);
    while (!done(server_.workers) && absl::Now() < end) absl::SleepFor(absl::Milliseconds(10));
    agent->Stop();
    run.join();
    EXPECT_TRUE(done(server_.workers));
  }
  void Offer(const v1::Lease& lease) {
    MutexLock lock(&server_.workers.mu);
    server_.workers.leases.push_back(lease);
  }

  TempDirectory directory_;
  FakeServer server_;
};

TEST_F(AgentTest, AReportThatTheServerHasNoRoomForIsSentAgain) {
  server_.workers.answer_report = [](int call) {
    return call > 2 ? grpc::Status::OK : Refused("STORE_FULL");
  };
  Offer(SomeLease());  // of no kind: it fails, which is reported too
  RunUntil([](FakeWorkers& workers) {
    MutexLock lock(&workers.mu);
    return workers.reports == 3;
  });
}

TEST_F(AgentTest, AServerThatHasNoRoomForTheReportHearsThatTheTaskWaitsForIt) {
  server_.workers.answer_report = [](int call) {
    return call > 5 ? grpc::Status::OK : Refused("STORE_FULL");
  };
  Offer(SomeLease());
  RunUntil([](FakeWorkers& workers) {
    MutexLock lock(&workers.mu);
    return workers.reports == 6;
  });
  // Its heartbeats are ten seconds apart, and this took less; that it waits is told at once.
  MutexLock lock(&server_.workers.mu);
  ASSERT_FALSE(server_.workers.beats.empty());
  EXPECT_EQ(server_.workers.beats[0].beats(0).waits_for(), "the server's storage is full: refused");
}

TEST_F(AgentTest, AServerThatHasNoRoomToRegisterItIsAskedAgain) {
  server_.workers.answer_register = [](int call) {
    return call > 2 ? grpc::Status::OK : Refused("STORE_FULL");
  };
  RunUntil([](FakeWorkers& workers) {
    MutexLock lock(&workers.mu);
    return workers.registrations == 3;
  });
}

TEST_F(AgentTest, AResultThatIsRefusedIsReportedAsAFailure) {
  server_.workers.answer_result = [](int) { return Refused("OUTPUT_MISSING"); };
  v1::Lease lease = SomeLease();
  lease.mutable_spec()->mutable_ingest()->set_directory(LWQ_SAMPLE_MODEL);
  Offer(lease);
  RunUntil([](FakeWorkers& workers) {
    MutexLock lock(&workers.mu);
    return workers.results == 1 && workers.last_failure.reason() == "OUTPUT_MISSING";
  });
}

TEST_F(AgentTest, EndsWhenItHadNoWorkForSoLong) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "reference"}));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto agent,
                           Agent::Create({.server = server_.address(),
                                          .worker_id = "w",
                                          .work_directory = JoinPath(directory_.path(), "work"),
                                          .exit_when_idle = absl::Milliseconds(300)},
                                         device.get()));
  EXPECT_FALSE(agent->registered());
  const absl::Time start = absl::Now();
  EXPECT_OK(agent->Run());  // or hangs
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(300));
  EXPECT_TRUE(agent->registered());
  EXPECT_THAT(agent->ExposeMetrics(), ::testing::HasSubstr("lwq_worker_busy 0"));
}

// Where one server stops and another one is to follow, the worker being stopped at the same time.
TEST_F(AgentTest, ATaskIsGivenBackToTheServerThatLeadsNext) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "reference"}));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto agent,
                           Agent::Create({.server = server_.address(),
                                          .worker_id = "w",
                                          .work_directory = JoinPath(directory_.path(), "work")},
                                         device.get()));
  server_.workers.answer_report = [&](int) {
    agent->Stop();
    return grpc::Status::OK;
  };
  server_.workers.answer_release = [](int call) {
    return call > 3 ? grpc::Status::OK
                    : grpc::Status(grpc::StatusCode::UNAVAILABLE, "nobody leads");
  };
  Offer(SomeLease());  // of no kind: it fails, and with the report the worker is told to stop
  Offer(SomeLease());  // so this one is given back
  EXPECT_OK(agent->Run());
  MutexLock lock(&server_.workers.mu);
  EXPECT_EQ(server_.workers.releases, 5);  // four of the task, and the last says that it leaves
}

class LostDevice : public ReferenceDevice {
 public:
  bool Lost() override { return true; }
  int64_t memory_limit_bytes() const override { return 12'345'678; }
};

TEST_F(AgentTest, EndsWhenItsDeviceIsLostAndItsTaskRunsElsewhere) {
  LostDevice device;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto agent,
                           Agent::Create({.server = server_.address(),
                                          .worker_id = "w",
                                          .work_directory = JoinPath(directory_.path(), "work"),
                                          .memory_bytes = 99'999'999},
                                         &device));
  EXPECT_THAT(agent->ExposeMetrics(),
              ::testing::HasSubstr("lwq_worker_memory_bytes{kind=\"ceiling\"} 12345678"));
  Offer(SomeLease());  // of no kind: it fails
  EXPECT_THAT(agent->Run(), FailsWith("DEVICE_LOST", ::testing::HasSubstr("reference")));
  MutexLock lock(&server_.workers.mu);
  EXPECT_EQ(server_.workers.last_failure.reason(), "DEVICE_LOST");
}

double LastBusySeconds(FakeWorkers& workers) {
  MutexLock lock(&workers.mu);
  return workers.beats.empty() ? -1 : workers.beats.back().beats(0).busy_seconds();
}

TEST(LeaseKeeperTest, ALongStepShowsAsCpuTimeAndAWaitDoesNot) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  FakeServer server(directory.path());
  const auto stub = v1::WorkerService::NewStub(MakeChannel(server.address()));
  LeaseKeeper keeper(stub.get(), "w", "i", SomeLease(), absl::Milliseconds(100), Clock::Real());
  const absl::Time end = absl::Now() + absl::Seconds(40);
  // While it waits the count stands still. Connecting may be work, on a busy machine for a while.
  double waited = -1;
  double before = -2;
  while ((before < 0 || waited != before) && absl::Now() < end) {
    before = LastBusySeconds(server.workers);
    absl::SleepFor(absl::Milliseconds(600));
    waited = LastBusySeconds(server.workers);
  }
  EXPECT_EQ(waited, before);
  while (LastBusySeconds(server.workers) < waited + 0.2 && absl::Now() < end) continue;
  EXPECT_GE(LastBusySeconds(server.workers), waited + 0.2);
}

}  // namespace
}  // namespace lwq::testing
