// What goes wrong around a server, and what must not come of it.
#include <future>
#include <set>

#include "tests/server/service/server_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

constexpr char kIncarnation[] = "0123456789abcdef";
constexpr char kRequestId[] = "01234567-89ab-cdef-0123-456789abcdef";

// A worker of which the test makes each call.
class HandWorker {
 public:
  HandWorker(Stubs& stubs, std::string id) : stubs_(stubs), id_(std::move(id)) {
    v1::RegisterWorkerResponse response;
    EXPECT_OK(Call(*stubs_.workers, &v1::WorkerService::Stub::RegisterWorker,
                   Registration(id_, kIncarnation), &response));
  }
  std::vector<v1::Lease> Lease(int count = 1) {
    v1::LeaseTasksRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(kIncarnation);
    request.set_max_tasks(count);
    v1::LeaseTasksResponse response;
    EXPECT_OK(Call(*stubs_.workers, &v1::WorkerService::Stub::LeaseTasks, request, &response));
    return {response.leases().begin(), response.leases().end()};
  }
  v1::LeaseDirective::Directive Beat(const v1::Lease& lease) {
    v1::HeartbeatRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(kIncarnation);
    request.add_beats()->set_task(lease.task());
    request.mutable_beats(0)->set_epoch(lease.epoch());
    v1::HeartbeatResponse response;
    EXPECT_OK(Call(*stubs_.workers, &v1::WorkerService::Stub::Heartbeat, request, &response));
    return response.directives_size() == 1 ? response.directives(0).directive()
                                           : v1::LeaseDirective::DIRECTIVE_UNSPECIFIED;
  }
  absl::Status Complete(const v1::Lease& lease, const v1::TaskOutput& output) {
    v1::CompleteTaskRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(kIncarnation);
    request.set_task(lease.task());
    request.set_epoch(lease.epoch());
    request.set_completion_id(RandomHex(8));
    *request.mutable_output() = output;
    v1::CompleteTaskResponse response;
    return Call(*stubs_.workers, &v1::WorkerService::Stub::CompleteTask, request, &response);
  }
  absl::Status Fail(const v1::Lease& lease, const std::string& reason) {
    v1::FailTaskRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(kIncarnation);
    request.set_task(lease.task());
    request.set_epoch(lease.epoch());
    request.mutable_failure()->set_reason(reason);
    v1::FailTaskResponse response;
    return Call(*stubs_.workers, &v1::WorkerService::Stub::FailTask, request, &response);
  }

 private:
  Stubs& stubs_;
  const std::string id_;
};

class ServerFaults : public ServerTest {
 protected:
  // A model that is verified, by a worker that then leaves.
  void AddModelAlone() {
    ScriptedWorker worker(server_->address(), "first");
    AddModel();
  }
  // Until the server has done what it had to write when this was called.
  void WaitForWrites() {
    v1::CancelJobRequest last;
    last.set_name("jobs/none");
    v1::Job none;
    EXPECT_THAT(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, last, &none),
                FailsWith("NOT_FOUND", _));
  }
  std::atomic<bool> was_full_{false};
  std::atomic<bool> done_{false};
};

TEST_F(ServerFaults, AClockThatIsSetTakesNoLease) {
  AddModelAlone();
  HandWorker worker(*stubs_, "w");
  ASSERT_OK(Submit(JobRequest(5.0)));
  const v1::Lease lease = worker.Lease().at(0);
  for (const absl::Duration jump : {absl::Hours(1), -absl::Hours(2), absl::Hours(1)}) {
    clock_.JumpWall(jump);
    Advance(absl::Seconds(5));
    EXPECT_EQ(worker.Beat(lease), v1::LeaseDirective::CONTINUE) << "after a jump of " << jump;
  }
  // And one that is silent loses it in its time, whatever the wall says.
  clock_.JumpWall(-absl::Hours(1));
  Advance(absl::Seconds(35));
  WaitForWrites();
  EXPECT_EQ(worker.Beat(lease), v1::LeaseDirective::LEASE_LOST);
}

TEST_F(ServerFaults, AServerThatStoodStillTakesNoLease) {
  AddModelAlone();
  HandWorker worker(*stubs_, "w");
  ASSERT_OK(Submit(JobRequest(5.0)));
  const v1::Lease lease = worker.Lease().at(0);
  clock_.Advance(absl::Seconds(40));  // at once: nothing of the server ran
  absl::SleepFor(absl::Milliseconds(50));
  Advance(absl::Seconds(5));
  EXPECT_EQ(worker.Beat(lease), v1::LeaseDirective::CONTINUE);
}

TEST_F(ServerFaults, AJobThatEndsWhileItIsUpdatedStaysEnded) {
  // The commit that ends the job is held until an update has been sent.
  std::promise<void> ending, updated;
  std::atomic<bool> armed{false};
  before_commit_ = [&](const std::vector<Write>& writes) {
    for (const Write& write : writes) {
      if (write.table == Table::kJobs && write.record.state == v1::Job::CANCELLED &&
          armed.exchange(false)) {
        ending.set_value();
        updated.get_future().wait_for(std::chrono::milliseconds(300));
      }
    }
  };
  StartServer();
  AddModelAlone();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  armed = true;
  std::thread cancel([&] {
    v1::CancelJobRequest request;
    request.set_name(job.name());
    v1::Job cancelled;
    EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, request, &cancelled));
  });
  ending.get_future().wait();
  v1::UpdateJobRequest request;
  request.set_name(job.name());
  (*request.mutable_labels())["a"] = "b";
  v1::Job answer;
  EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::UpdateJob, request, &answer));
  cancel.join();
  EXPECT_EQ(answer.state(), v1::Job::CANCELLED);
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::CANCELLED);
  EXPECT_EQ(GetJob(job.name()).labels().at("a"), "b");
  StartServer();  // as it is stored
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::CANCELLED);
}

TEST_F(ServerFaults, AFullDiskWhileAJobIsPlannedStopsItForAsLongAsItIsFull) {
  before_commit_ = [this](const std::vector<Write>& writes) {
    // Full from the moment that planning begins.
    for (const Write& write : writes) {
      v1::JobRecord job;
      if (write.table == Table::kJobs && job.ParseFromString(write.record.value) &&
          job.plan_state() == v1::JobRecord::PLANNED && !was_full_.exchange(true)) {
        store_->full = true;
      }
    }
  };
  StartServer();
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  while (!was_full_) absl::SleepFor(absl::Milliseconds(5));
  Advance(absl::Seconds(5));
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::RUNNING);
  store_->full = false;
  std::thread time([&] {
    while (!done_) Advance(absl::Milliseconds(100));  // slow enough for the worker's lease
  });
  EXPECT_OK(Watch(job.name()));
  done_ = true;
  time.join();
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::SUCCEEDED);
}

TEST_F(ServerFaults, IdleWatchersReadNothing) {
  AddModelAlone();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  constexpr int kWatchers = 50;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::JobEvent>>> readers;
  for (int i = 0; i < kWatchers; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    v1::WatchJobRequest request;
    request.set_name(job.name());
    readers.push_back(stubs_->jobs->WatchJob(contexts.back().get(), request));
    v1::JobEvent event;
    ASSERT_TRUE(readers.back()->Read(&event));
  }
  Advance(absl::Seconds(1));
  const int64_t before = store_->reads;
  Advance(absl::Seconds(8));
  EXPECT_EQ(store_->reads, before) << "in 8 s in which nothing happened";
  for (auto& context : contexts) context->TryCancel();
}

TEST_F(ServerFaults, OnePollIsWokenForOneTask) {
  AddModelAlone();
  // Polls of workers that cannot run the task, and of one that can.
  std::vector<std::thread> polls;
  std::atomic<int> leased{0};
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  for (int i = 0; i < 8; ++i) {
    v1::RegisterWorkerRequest registration = Registration(absl::StrCat("w", i), kIncarnation);
    if (i != 5) registration.clear_families();
    v1::RegisterWorkerResponse registered;
    ASSERT_OK(Call(*stubs_->workers, &v1::WorkerService::Stub::RegisterWorker, registration,
                   &registered));
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    polls.emplace_back([&, i, context = contexts.back().get()] {
      v1::LeaseTasksRequest request;
      request.set_worker_id(absl::StrCat("w", i));
      request.set_incarnation(kIncarnation);
      request.set_max_tasks(1);
      request.set_wait_seconds(20);
      v1::LeaseTasksResponse response;
      if (stubs_->workers->LeaseTasks(context, request, &response).ok() &&
          response.leases_size() == 1) {
        leased += 1 << i;
      }
    });
  }
  absl::SleepFor(absl::Milliseconds(100));  // until all wait; the clock stands still
  ASSERT_OK(Submit(JobRequest(5.0)));
  polls[5].join();
  EXPECT_EQ(leased, 1 << 5);
  for (auto& context : contexts) context->TryCancel();
  for (std::thread& poll : polls) {
    if (poll.joinable()) poll.join();
  }
}

TEST_F(ServerFaults, AnOutputOfNothingIsRefusedAndAnotherWorkerDoesTheTask) {
  AddModelAlone();
  HandWorker bad(*stubs_, "bad");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  const v1::Lease lease = bad.Lease().at(0);
  EXPECT_THAT(bad.Complete(lease, {}), FailsWith("OUTPUT_INVALID", _));
  EXPECT_EQ(bad.Beat(lease), v1::LeaseDirective::LEASE_LOST);
  ScriptedWorker good(server_->address(), "good");
  EXPECT_OK(Watch(job.name()));
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::SUCCEEDED);
}

TEST_F(ServerFaults, AJobThatNoWorkerCanRunEnds) {
  AddModelAlone();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  Advance(absl::Minutes(70), /*step=*/absl::Seconds(5));
  WaitForWrites();
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::FAILED);
  EXPECT_EQ(GetJob(job.name()).failure().reason(), "NO_MATCHING_WORKER");
  // The worker is forgotten, so what it could do is offered no more.
  EXPECT_THAT(Submit(JobRequest(5.0)), FailsWith("METHOD_UNKNOWN", HasSubstr("no worker")));
}

// Most workers lack the scorer: their class is not the job's.
TEST_F(ServerFaults, AJobIsGivenToAClassThatCanRunIt) {
  AddModelAlone();
  for (const char* id : {"u", "v", "w"}) {
    v1::RegisterWorkerRequest registration = Registration(id, kIncarnation);
    registration.set_numerics_class("cpu-2");
    registration.clear_scorers();
    v1::RegisterWorkerResponse registered;
    ASSERT_OK(Call(*stubs_->workers, &v1::WorkerService::Stub::RegisterWorker, registration,
                   &registered));
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  ScriptedWorker worker(server_->address(), "whole");
  EXPECT_OK(Watch(job.name()));
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::SUCCEEDED);
}

// A call other than the ticker's is the first to notice that a task's time has come.
TEST_F(ServerFaults, APollIsWokenForATaskThatAHeartbeatMadeReady) {
  AddModelAlone();
  HandWorker worker(*stubs_, "w");
  ASSERT_OK(Submit(JobRequest(5.0)));
  const std::vector<v1::Lease> leases = worker.Lease(8);
  std::atomic<bool> leased{false};
  std::thread poll([&] {
    v1::LeaseTasksRequest request;
    request.set_worker_id("w");
    request.set_incarnation(kIncarnation);
    request.set_wait_seconds(20);
    v1::LeaseTasksResponse response;
    EXPECT_OK(Call(*stubs_->workers, &v1::WorkerService::Stub::LeaseTasks, request, &response));
    leased = response.leases_size() > 0;
  });
  absl::SleepFor(absl::Milliseconds(100));  // until it waits
  ASSERT_OK(worker.Fail(leases.at(0), "STORE_UNAVAILABLE"));
  for (int i = 0; i < 600 && !leased; ++i) {  // 3 s; the task waits for 1 s
    clock_.Advance(absl::Milliseconds(5));
    if (leases.size() > 1) worker.Beat(leases[1]);
    worker.Beat(leases[0]);
  }
  // Time stands still: nothing but that wakes it.
  for (int i = 0; i < 2000 && !leased; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(leased);
  clock_.Advance(absl::Seconds(20));
  poll.join();
}

// The worker's download was cut and went on: nobody saw the whole of the blob but the worker.
TEST_F(ServerFaults, ABlobThatAWorkerFoundCorruptIsReadByTheServerAndMadeAgain) {
  AddModelAlone();
  HandWorker worker(*stubs_, "w");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  v1::Lease lease = worker.Lease().at(0);
  while (!lease.spec().has_score()) {
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput output, ScriptedWorker::OutputOf(*stubs_, lease));
    ASSERT_OK(worker.Complete(lease, output));
    lease = worker.Lease().at(0);
  }
  std::string digest;
  for (const v1::TaskInput& input : lease.inputs()) {
    if (input.role() == "quantize") digest = input.output().blobs(0).blob().sha256();
  }
  const std::string file = path(absl::StrCat("data/blobs/sha256/", digest.substr(0, 2), "/",
                                             digest.substr(2, 2), "/", digest));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string right, ReadFile(file, 1 << 20));
  std::string wrong = right;
  wrong[1] ^= 1;
  ASSERT_OK(WriteFileAtomically(file, wrong));
  ASSERT_OK(worker.Fail(lease, "BLOB_CORRUPT"));
  ScriptedWorker other(server_->address(), "other");
  std::thread time([&] {
    while (!done_) Advance(absl::Milliseconds(100));  // slow enough for the worker's lease
  });
  EXPECT_OK(Watch(job.name()));
  done_ = true;
  time.join();
  EXPECT_EQ(GetJob(job.name()).state(), v1::Job::SUCCEEDED);
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string now, ReadFile(file, 1 << 20));
  EXPECT_EQ(now, right);
}

TEST_F(ServerFaults, ManyJobsComeInPagesThatFitAMessage) {
  std::vector<Write> writes;
  for (int i = 0; i < 900; ++i) {
    v1::JobRecord job;
    job.mutable_job()->set_name(absl::StrCat("jobs/j", i));
    job.mutable_job()->set_state(v1::Job::SUCCEEDED);
    for (int u = 0; u < 150; ++u) {
      job.mutable_job()->mutable_plan()->add_units()->set_unit(std::string(40, 'u'));
    }
    Write& write = writes.emplace_back();
    write.table = Table::kJobs;
    write.record = {.key = job.job().name(), .value = job.SerializeAsString(), .order = i + 1};
  }
  ASSERT_OK(rows_.Commit(writes));
  v1::ListJobsRequest request;
  request.set_page_size(1000);
  std::set<std::string> seen;
  do {
    v1::ListJobsResponse page;
    ASSERT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::ListJobs, request, &page));
    for (const v1::Job& job : page.jobs()) EXPECT_TRUE(seen.insert(job.name()).second);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen.size(), 900u);
}

TEST_F(ServerFaults, AJobWithMoreItemsThanAMessageHoldsIsAnswered) {
  v1::JobRecord job;
  job.mutable_job()->set_name("jobs/big");
  job.mutable_job()->set_state(v1::Job::SUCCEEDED);
  v1::ChoiceResult& choice = *job.mutable_job()->add_evaluations()->mutable_choice();
  choice.set_acc(0.5);
  for (int i = 0; i < 100'000; ++i) {
    for (int c = 0; c < 4; ++c) choice.add_items()->add_log_likelihoods(-1.5);
  }
  Write write{.table = Table::kJobs};
  write.record = {.key = "jobs/big", .value = job.SerializeAsString()};
  ASSERT_OK(rows_.Commit({write}));
  const v1::Job answer = GetJob("jobs/big");
  EXPECT_EQ(answer.evaluations(0).choice().acc(), 0.5);
  EXPECT_EQ(answer.warnings_size(), 1);
}

TEST_F(ServerFaults, ARetrySentTwiceUnderOneRequestIdActsOnce) {
  AddModelAlone();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  const auto cancel = [&] {
    v1::CancelJobRequest request;
    request.set_name(job.name());
    v1::Job cancelled;
    EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, request, &cancelled));
  };
  cancel();
  v1::RetryJobRequest request;
  request.set_name(job.name());
  request.set_request_id(kRequestId);
  v1::Job retried;
  EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::RetryJob, request, &retried));
  EXPECT_EQ(retried.generation(), 1);
  cancel();  // by somebody else, before the lost answer is asked for again
  EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::RetryJob, request, &retried));
  EXPECT_EQ(retried.generation(), 1);
  EXPECT_EQ(retried.state(), v1::Job::CANCELLED);
  v1::CancelJobRequest other;
  other.set_name(job.name());
  other.set_request_id(kRequestId);
  EXPECT_THAT(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, other, &retried),
              FailsWith("REQUEST_ID_REUSED", _));
}

TEST_F(ServerFaults, NumbersOutOfRangeAreRefused) {
  AddModelAlone();
  v1::CreateJobRequest request = JobRequest(5.0);
  request.mutable_job()->set_priority(static_cast<v1::Job::Priority>(1000));
  EXPECT_THAT(Submit(request), FailsWith("FIELD_INVALID", HasSubstr("priority")));

  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  v1::Job updated;
  for (int round = 0; round < 2; ++round) {
    v1::UpdateJobRequest update;
    update.set_name(job.name());
    for (int i = 0; i < 20; ++i) (*update.mutable_labels())[absl::StrCat(round, "-", i)] = "x";
    absl::Status status = Call(*stubs_->jobs, &v1::JobService::Stub::UpdateJob, update, &updated);
    EXPECT_EQ(status.ok(), round == 0) << status;
    if (round == 1) {
      EXPECT_THAT(status, FailsWith("LABEL_INVALID", _));
    }
  }

  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(*stubs_, "content"));
  v1::ReadBlobRequest read;
  *read.mutable_blob() = blob;
  read.set_read_offset(1);
  read.set_read_limit(INT64_MAX);
  grpc::ClientContext context;
  auto reader = stubs_->blobs->ReadBlob(&context, read);
  v1::ReadBlobResponse chunk;
  std::string bytes;
  while (reader->Read(&chunk)) bytes += chunk.data();
  EXPECT_OK(FromGrpcStatus(reader->Finish()));
  EXPECT_EQ(bytes, "ontent");
}

TEST_F(ServerFaults, ASecondServerDoesNotStealTheSocket) {
  ServerOptions options = options_;
  options.data_directory = path("other");
  EXPECT_THAT(Server::Start(options), FailsWith("ADDRESS_IN_USE", _));
  v1::ServerInfo info;
  EXPECT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::GetServerInfo, v1::GetServerInfoRequest(),
                 &info));
  EXPECT_EQ(info.data_directory(), options_.data_directory);
}

TEST_F(ServerFaults, ModelRootsHoldForEveryDirectory) {
  options_.model_roots = {path("model") + "/"};
  StartServer();
  AddModelAlone();  // inside, though the root was given with a slash
  ASSERT_OK(MakeDirectories(path("elsewhere")));
  v1::CreateJobRequest request;
  v1::EvaluateSpec& spec = *request.mutable_job()->mutable_spec()->mutable_evaluate();
  spec.mutable_evaluation()->set_text_dataset("datasets/text");
  spec.set_model_directory(path("elsewhere"));
  EXPECT_THAT(Submit(request), FailsWith("PATH_NOT_ALLOWED", _));
  spec.set_model_directory(path("model"));
  spec.set_against_directory(path("model") + "/../elsewhere");
  EXPECT_THAT(Submit(request), FailsWith("PATH_NOT_ALLOWED", _));
  spec.clear_against_directory();
  EXPECT_OK(Submit(request));
}

}  // namespace
}  // namespace lwq::testing
