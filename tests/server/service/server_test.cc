// A whole server, its jobs, watchers and restarts.
#include <cmath>
#include <future>

#include "tests/server/service/server_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

TEST_F(ServerTest, AJobRunsToItsArtifactAndASecondBudgetComesFromTheCache) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  v1::CreateJobRequest request = JobRequest(5.0);
  request.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(request));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto events, Watch(job.name()));
  ASSERT_TRUE(events.front().has_snapshot());
  ASSERT_TRUE(events.back().has_state());
  EXPECT_EQ(events.back().state().to(), v1::Job::SUCCEEDED);
  double fraction = 0;
  for (const v1::JobEvent& event : events) {
    if (!event.has_progress()) continue;
    EXPECT_GE(event.progress().fraction(), fraction);
    fraction = event.progress().fraction();
  }
  const v1::Job done = GetJob(job.name());
  EXPECT_EQ(done.plan().units_size(), kLayers);
  EXPECT_EQ(done.evaluations_size(), 2);
  EXPECT_EQ(done.evaluations(0).choice().items_size(), 1);
  EXPECT_TRUE(events.back().state().job().evaluations(0).choice().items().empty());

  v1::ReadArtifactRequest read;
  read.set_name(done.artifact());
  read.set_file("model.safetensors");
  read.set_read_offset(300'000);
  grpc::ClientContext context;
  auto reader = stubs_->artifacts->ReadArtifact(&context, read);
  v1::ReadArtifactResponse chunk;
  int64_t offset = 300'000;
  while (reader->Read(&chunk)) {
    EXPECT_EQ(chunk.offset(), offset);
    offset += static_cast<int64_t>(chunk.data().size());
  }
  EXPECT_OK(FromGrpcStatus(reader->Finish()));
  EXPECT_EQ(offset, 700'000);

  // The same request again is the same job; with another body it is refused.
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job again, Submit(request));
  EXPECT_EQ(again.name(), job.name());
  request.mutable_job()->set_priority(v1::Job::HIGH);
  EXPECT_THAT(Submit(request), FailsWith("REQUEST_ID_REUSED", _));

  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job second, Submit(JobRequest(4.0)));
  ASSERT_OK(Watch(second.name()));
  EXPECT_GE(GetJob(second.name()).progress().tasks_cached(), 2 * kLayers + 1);
  EXPECT_EQ(GetJob(second.name()).state(), v1::Job::SUCCEEDED);
}

TEST_F(ServerTest, AWorkerThatHasGoneIsShownSoon) {
  const auto state = [&] {
    v1::ListWorkersResponse workers;
    EXPECT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::ListWorkers, v1::ListWorkersRequest(),
                   &workers));
    return workers.workers_size() == 1 ? workers.workers(0).state() : v1::Worker::STATE_UNSPECIFIED;
  };
  const auto becomes = [&](v1::Worker::State wanted) {
    // In well below the minute after which a worker without a word is given up. The end of its call
    // is a word too, whenever the server learns of it.
    for (int second = 0; second < 40; ++second) {
      if (state() == wanted) return true;
      clock_.Advance(absl::Seconds(1));
      absl::SleepFor(absl::Milliseconds(50));
    }
    return false;
  };
  {
    ScriptedWorker worker(server_->address(), "w");
    ASSERT_TRUE(becomes(v1::Worker::READY));
    clock_.Advance(absl::Seconds(15));  // its call waits for a task all the while, or is on its way
    EXPECT_TRUE(becomes(v1::Worker::READY));
  }
  EXPECT_TRUE(becomes(v1::Worker::SILENT));
}

TEST_F(ServerTest, ARestartInTheMiddleLosesNothing) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  const int middle = worker.completed() + 4;
  worker.most_completed = middle;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  while (worker.completed() < middle) absl::SleepFor(absl::Milliseconds(5));
  StartServer();
  EXPECT_FALSE(IsTerminal(GetJob(job.name()).state()));
  worker.most_completed = INT_MAX;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto events, Watch(job.name(), 1));
  // Resumed after the first event: every number once, in order, to the end.
  int64_t seq = 1;
  for (const v1::JobEvent& event : events) {
    if (event.has_progress() || event.has_bookmark()) continue;
    EXPECT_EQ(event.seq(), ++seq);
  }
  EXPECT_EQ(events.back().state().to(), v1::Job::SUCCEEDED);
}

// On a leader that was replaced and does not know it yet, and in the moment before a commit is
// applied, a watcher may have seen more than the server has in memory. Seed 1710 of the simulation.
TEST_F(ServerTest, AWatcherThatHasSeenMoreThanThisServerWaitsForIt) {
  {
    ScriptedWorker worker(server_->address(), "w");
    AddModel();
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  const int64_t seen = job.last_event_seq() + 1;
  LWQ_ASSERT_OK_AND_ASSIGN(Record row, rows_.Get(Table::kJobs, job.name()));
  v1::JobRecord record;
  ASSERT_TRUE(record.ParseFromString(row.value));
  record.mutable_job()->set_last_event_seq(seen);
  record.SerializeToString(&row.value);
  ASSERT_OK(rows_.Commit({{.table = Table::kJobs, .record = row}}));
  EXPECT_THAT(Watch(job.name(), seen + 1), FailsWith("RESUME_TOKEN_AHEAD", _));

  const int64_t reads = store_->reads;
  auto watch = std::async(std::launch::async, [&] { return Watch(job.name(), seen); });
  while (store_->reads == reads &&
         watch.wait_for(std::chrono::milliseconds(5)) == std::future_status::timeout) {
  }
  v1::CancelJobRequest cancel;
  cancel.set_name(job.name());
  v1::Job cancelled;
  ASSERT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, cancel, &cancelled));
  // Nothing of a job that has ended is on its way, the planning neither.
  v1::ListTasksRequest ask;
  ask.set_job(cancel.name());
  v1::ListTasksResponse tasks;
  ASSERT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::ListTasks, ask, &tasks));
  ASSERT_GT(tasks.tasks_size(), 0);
  EXPECT_EQ(tasks.tasks(tasks.tasks_size() - 1).kind(), "plan");
  for (const v1::TaskStatus& task : tasks.tasks()) EXPECT_EQ(task.state(), "CANCELLED");
  EXPECT_OK(watch.get());
}

TEST_F(ServerTest, TwoHundredWatchersSeeTheEnd) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  worker.delay_ms = 20;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  std::vector<std::string> ends(200);  // what each saw last
  std::vector<std::thread> watchers;
  for (std::string& end : ends) {
    watchers.emplace_back([&] {
      const auto events = Watch(job.name());
      end = !events.ok()      ? events.status().ToString()
            : events->empty() ? "nothing"
                              : absl::StrCat(events->size(), " events, the last ",
                                             events->back().ShortDebugString());
      if (events.ok() && !events->empty() && events->back().has_state() &&
          events->back().state().to() == v1::Job::SUCCEEDED) {
        end = "succeeded";
      } else if (events.ok() && events->size() == 1 &&
                 events->front().snapshot().state() == v1::Job::SUCCEEDED) {
        end = "succeeded";  // came after the end
      }
    });
  }
  for (std::thread& thread : watchers) thread.join();
  EXPECT_THAT(ends, ::testing::Each("succeeded"));
}

TEST_F(ServerTest, BadRequestsGetTypedErrors) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  EXPECT_THAT(Submit(JobRequest(0.5)), FailsWith("BUDGET_INFEASIBLE", HasSubstr("smallest plan")));
  v1::CreateJobRequest request = JobRequest(5.0);
  v1::QuantizeSpec& spec = *request.mutable_job()->mutable_spec()->mutable_quantize();
  spec.set_method("magic");
  EXPECT_THAT(Submit(request), FailsWith("METHOD_UNKNOWN", HasSubstr("gptq")));
  spec.set_method("rtn");
  spec.add_group_sizes(96);
  EXPECT_THAT(Submit(request), FailsWith("GROUP_SIZE", _));
  spec.clear_group_sizes();
  spec.set_memory_bytes(1000);
  EXPECT_THAT(Submit(request), FailsWith("MEMORY_INFEASIBLE", _));
  spec.set_memory_bytes(-1);
  spec.set_damping(7);
  EXPECT_THAT(Submit(request), FailsWith("FIELD_INVALID", HasSubstr("damping")));
  spec.set_memory_bytes(0);
  spec.set_damping(0);
  spec.clear_budget();
  EXPECT_THAT(Submit(request), FailsWith("BUDGET_INVALID", _));
  request = JobRequest(5.0);
  request.mutable_job()->mutable_spec()->mutable_quantize()->set_model("models/none");
  EXPECT_THAT(Submit(request), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(Watch("jobs/none"), FailsWith("NOT_FOUND", _));
  v1::CreateModelRequest model;
  model.mutable_source()->set_directory("relative/path");
  v1::Model made;
  EXPECT_THAT(Call(*stubs_->models, &v1::ModelService::Stub::CreateModel, model, &made),
              FailsWith("PATH_NOT_ALLOWED", _));
  v1::ListJobsRequest list;
  list.set_page_token("nonsense");
  v1::ListJobsResponse jobs;
  EXPECT_THAT(Call(*stubs_->jobs, &v1::JobService::Stub::ListJobs, list, &jobs),
              FailsWith("PAGE_TOKEN_INVALID", _));
  v1::ServerInfo info;
  EXPECT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::GetServerInfo, v1::GetServerInfoRequest(),
                 &info));
}

// What workers say of themselves is kept, and told to every client that asks for the server's
// methods.
TEST_F(ServerTest, AWorkerSaysNoMoreOfItselfThanThereIsToSay) {
  v1::RegisterWorkerResponse registered;
  const auto registers = [&](const v1::RegisterWorkerRequest& request) {
    return Call(*stubs_->workers, &v1::WorkerService::Stub::RegisterWorker, request, &registered);
  };
  v1::RegisterWorkerRequest request = Registration("talker", "0123456789abcdef");
  for (int i = 0; i < 3000; ++i) {
    v1::Capability& made_up = *request.add_quantizers();
    made_up.set_name(absl::StrCat("q", i));
    made_up.set_help(std::string(500, 'x'));
  }
  EXPECT_THAT(registers(request), FailsWith("FIELD_INVALID", HasSubstr("at most 262144")));
  request = Registration("w", "0123456789abcdef");
  request.set_operations_per_second(std::nan(""));
  EXPECT_THAT(registers(request), FailsWith("FIELD_INVALID", HasSubstr("operations_per_second")));
  request.set_operations_per_second(1);
  request.set_memory_bytes(-1);
  EXPECT_THAT(registers(request), FailsWith("FIELD_INVALID", HasSubstr("memory_bytes")));
  // As many as it takes, each within its bounds.
  for (int w = 0; w < 20; ++w) {
    request = Registration(absl::StrCat("w", w), "0123456789abcdef");
    for (int i = 0; i < 400; ++i) {
      v1::Capability& made_up = *request.add_quantizers();
      made_up.set_name(absl::StrCat("q", w, "-", i));
      made_up.set_help(std::string(550, 'x'));
    }
    ASSERT_OK(registers(request));
  }
  v1::ServerInfo info;
  EXPECT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::GetServerInfo, v1::GetServerInfoRequest(),
                 &info));
  v1::ListWorkersRequest list;
  list.set_page_size(1000);
  int workers = 0;
  do {
    v1::ListWorkersResponse page;
    ASSERT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::ListWorkers, list, &page));
    workers += page.workers_size();
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_EQ(workers, 20);
}

// A UUID is one in capitals too.
TEST_F(ServerTest, ARequestIdIsTheSameInCapitals) {
  v1::CreateDatasetRequest request;
  request.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  LWQ_ASSERT_OK_AND_ASSIGN(*request.mutable_dataset()->mutable_blob(),
                           WriteBlob(*stubs_, "some other text"));
  request.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  request.set_dataset_id("first");
  v1::Dataset first, again;
  using Datasets = v1::DatasetService::Stub;
  ASSERT_OK(Call(*stubs_->datasets, &Datasets::CreateDataset, request, &first));
  request.set_request_id("01234567-89AB-CDEF-0123-456789ABCDEF");
  ASSERT_OK(Call(*stubs_->datasets, &Datasets::CreateDataset, request, &again));
  request.set_dataset_id("second");
  EXPECT_THAT(Call(*stubs_->datasets, &Datasets::CreateDataset, request, &again),
              FailsWith("REQUEST_ID_REUSED", ::testing::_));
}

TEST_F(ServerTest, AForeignAddressIsRefusedWithoutAuthentication) {
  ServerOptions options = options_;
  options.listen = "0.0.0.0:0";
  options.data_directory = path("other");
  EXPECT_THAT(Server::Start(options), FailsWith("ADDRESS_NOT_ALLOWED", _));
}

}  // namespace
}  // namespace lwq::testing
