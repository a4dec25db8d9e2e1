#include "client/client.h"

#include <atomic>

#include "base/failure.h"
#include "client/errors.h"
#include "client/watch.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_service.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::JobEvent Event(int64_t seq, v1::Job::State to) {
  v1::JobEvent event;
  event.set_seq(seq);
  event.mutable_state()->set_to(to);
  return event;
}

TEST(ClientTest, RepeatsUnavailableCallsUnderOneRequestId) {
  FakeServer server;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, server.client()->CreateJob({}));
  EXPECT_EQ(job.name(), "jobs/j-1");
  ASSERT_THAT(server.jobs.request_ids, SizeIs(3));
  EXPECT_THAT(server.jobs.request_ids[0], SizeIs(36));
  EXPECT_EQ(server.jobs.request_ids[0], server.jobs.request_ids[2]);
}

TEST(ClientTest, GivesUpAfterItsTimeAndSaysWhere) {
  FakeServer server;
  server.options().retry_for = absl::Milliseconds(30);
  server.Reconnect();
  server.jobs.failures_before_get = 1000;
  const absl::Status status = server.client()->GetJob("jobs/j-1").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("no answer from the server at unix:"));
}

TEST(ClientTest, AsksWhetherToGoOnBeforeRepeating) {
  FakeServer server;
  server.options().may_go_on = [] { return InterruptedError(); };
  server.Reconnect();
  server.jobs.failures_before_get = 1000;
  EXPECT_THAT(server.client()->GetJob("jobs/j-1"), FailsWith("INTERRUPTED", HasSubstr("Ctrl-C")));
}

TEST(WatchTest, ReconnectsAfterTheLastEventAndDropsRepeats) {
  FakeServer server;
  server.jobs.job.set_state(v1::Job::SUCCEEDED);
  server.jobs.on_watch = [&](const v1::WatchJobRequest& request,
                             grpc::ServerWriter<v1::JobEvent>* writer) {
    if (request.resume_seq() == 0) {
      v1::JobEvent snapshot;
      snapshot.set_seq(4);
      snapshot.mutable_snapshot()->set_state(v1::Job::QUEUED);
      writer->Write(snapshot);
      writer->Write(Event(5, v1::Job::RUNNING));
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarted");
    }
    writer->Write(Event(5, v1::Job::RUNNING));  // again: must not be shown twice
    writer->Write(Event(6, v1::Job::SUCCEEDED));
    return grpc::Status::OK;
  };
  std::vector<int64_t> seen;
  int reconnects = 0;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, WatchJob(
                                                  server.client(), "jobs/j-1",
                                                  [&](const v1::JobEvent& event) {
                                                    seen.push_back(event.seq());
                                                    return absl::OkStatus();
                                                  },
                                                  [&](const absl::Status&) { ++reconnects; }));
  EXPECT_EQ(job.state(), v1::Job::SUCCEEDED);
  EXPECT_THAT(seen, ElementsAre(4, 5, 6));
  EXPECT_THAT(server.jobs.resumed_from, ElementsAre(0, 5));
  EXPECT_EQ(reconnects, 1);
}

TEST(WatchTest, AServerThatEndsTheCallIsWaitedFor) {
  FakeServer server;
  server.jobs.job.set_state(v1::Job::SUCCEEDED);
  server.jobs.on_watch = [](const v1::WatchJobRequest& request,
                            grpc::ServerWriter<v1::JobEvent>* writer) {
    if (request.resume_seq() > 0) return grpc::Status::OK;
    writer->Write(Event(1, v1::Job::RUNNING));
    return grpc::Status::CANCELLED;
  };
  EXPECT_OK(
      WatchJob(server.client(), "jobs/j-1", [](const v1::JobEvent&) { return absl::OkStatus(); }));
  EXPECT_THAT(server.jobs.resumed_from, ElementsAre(0, 1));
}

TEST(WatchTest, AStoreThatWasPutBackStartsFromASnapshot) {
  FakeServer server;
  server.jobs.job.set_state(v1::Job::SUCCEEDED);
  server.jobs.on_watch = [&](const v1::WatchJobRequest& request,
                             grpc::ServerWriter<v1::JobEvent>* writer) {
    if (server.jobs.resumed_from.size() == 1) {
      writer->Write(Event(9, v1::Job::RUNNING));
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarted");
    }
    if (request.resume_seq() == 9) {
      return ToGrpcStatus(Failure(absl::StatusCode::kOutOfRange, "RESUME_TOKEN_AHEAD", "ahead"));
    }
    return grpc::Status::OK;
  };
  EXPECT_OK(
      WatchJob(server.client(), "jobs/j-1", [](const v1::JobEvent&) { return absl::OkStatus(); }));
  EXPECT_THAT(server.jobs.resumed_from, ElementsAre(0, 9, 0));
}

TEST(WatchTest, CtrlCEndsASilentStream) {
  FakeServer server;
  std::atomic<bool> watched{false};
  server.jobs.on_watch = [&](const v1::WatchJobRequest&, grpc::ServerWriter<v1::JobEvent>* writer) {
    watched = true;
    while (writer->Write(v1::JobEvent())) absl::SleepFor(absl::Milliseconds(20));
    return grpc::Status::OK;  // the client has gone
  };
  server.options().may_go_on = [&] { return watched ? InterruptedError() : absl::OkStatus(); };
  server.Reconnect();
  EXPECT_THAT(
      WatchJob(server.client(), "jobs/j-1", [](const v1::JobEvent&) { return absl::OkStatus(); }),
      FailsWith("INTERRUPTED", HasSubstr("")));
}

TEST(WatchTest, AnUnknownJobIsAnErrorAtOnce) {
  FakeServer server;
  server.jobs.on_watch = [](const v1::WatchJobRequest&, grpc::ServerWriter<v1::JobEvent>*) {
    return ToGrpcStatus(absl::NotFoundError("no such job"));
  };
  EXPECT_TRUE(absl::IsNotFound(WatchJob(server.client(), "jobs/none", [](const v1::JobEvent&) {
                                 return absl::OkStatus();
                               }).status()));
}

}  // namespace
}  // namespace lwq::client
