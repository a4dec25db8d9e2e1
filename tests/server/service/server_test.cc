// A whole server over a Unix socket, with a worker whose results are made up.
#include "server/service/server.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rpc/grpc_status.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
#include "records/blob_names.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::_;
using ::testing::HasSubstr;

constexpr int kLayers = 3;

struct Stubs {
  explicit Stubs(const std::string& address)
      : channel(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        jobs(v1::JobService::NewStub(channel)),
        models(v1::ModelService::NewStub(channel)),
        datasets(v1::DatasetService::NewStub(channel)),
        blobs(v1::BlobService::NewStub(channel)),
        artifacts(v1::ArtifactService::NewStub(channel)),
        workers(v1::WorkerService::NewStub(channel)),
        admin(v1::AdminService::NewStub(channel)) {}
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::DatasetService::Stub> datasets;
  std::unique_ptr<v1::BlobService::Stub> blobs;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts;
  std::unique_ptr<v1::WorkerService::Stub> workers;
  std::unique_ptr<v1::AdminService::Stub> admin;
};

// A call with a deadline and its status as the product's.
template <typename Method, typename Stub, typename Request, typename Response>
absl::Status Call(Stub& stub, Method method, const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  return FromGrpcStatus((stub.*method)(&context, request, response));
}

absl::StatusOr<v1::BlobRef> WriteBlob(Stubs& stubs, const std::string& content) {
  v1::BlobRef blob;
  blob.set_sha256(Sha256Hex(content));
  blob.set_size_bytes(static_cast<int64_t>(content.size()));
  grpc::ClientContext context;
  v1::WriteBlobResponse response;
  auto writer = stubs.blobs->WriteBlob(&context, &response);
  v1::WriteBlobRequest request;
  *request.mutable_blob() = blob;
  request.set_data(content);
  request.set_finish_write(true);
  writer->Write(request);
  writer->WritesDone();
  absl::Status status = FromGrpcStatus(writer->Finish());
  if (!status.ok()) return status;
  return blob;
}

v1::ModelManifest Manifest(const std::string& directory) {
  v1::ModelManifest manifest;
  manifest.set_digest(Sha256Hex("model"));
  struct stat info;
  stat((directory + "/config.json").c_str(), &info);
  v1::ModelFile& file = *manifest.add_files();
  file.set_name("config.json");
  file.set_size_bytes(info.st_size);
  file.set_modified_ns(info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec);
  v1::Inventory& inventory = *manifest.mutable_inventory();
  inventory.set_num_layers(kLayers);
  inventory.set_weight_dtype("F16");
  inventory.set_hidden_size(128);
  inventory.set_intermediate_size(128);
  inventory.set_vocab_size(256);
  inventory.set_num_heads(2);
  inventory.set_num_kv_heads(2);
  inventory.set_head_dim(64);
  inventory.set_max_positions(512);
  for (int l = 0; l < kLayers; ++l) {
    manifest.add_layer_digests(Sha256Hex(absl::StrCat(l)));
    v1::InventoryUnit& unit = *inventory.add_units();
    unit.set_name(absl::StrCat("layers.", l, ".mlp.down_proj"));
    unit.set_layer(l);
    unit.set_part(v1::PART_LAYER);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_module(absl::StrCat("model.layers.", l, ".mlp.down_proj"));
    linear.set_out_features(128);
    linear.set_in_features(128);
  }
  return manifest;
}

// Leases, makes results up, completes. Stops by itself when told.
class ScriptedWorker {
 public:
  ScriptedWorker(std::string address, std::string id)
      : address_(std::move(address)), id_(std::move(id)), thread_([this] { Run(); }) {}
  ~ScriptedWorker() {
    stop_ = true;
    thread_.join();
  }
  int completed() const { return completed_; }
  // Holds every further task for so long.
  std::atomic<int> delay_ms{0};

 private:
  void Run() {
    const std::string incarnation = RandomHex(16);
    Stubs stubs(address_);
    bool registered = false;
    while (!stop_) {
      if (!registered) {
        v1::RegisterWorkerRequest request;
        request.set_worker_id(id_);
        request.set_incarnation(incarnation);
        request.set_protocol(1);
        for (const char* name : {"gptq", "rtn"}) {
          v1::Capability& c = *request.add_quantizers();
          c.set_name(name);
          c.set_needs_calibration(std::string(name) == "gptq");
        }
        v1::Capability& kl = *request.add_scorers();
        kl.set_name("kl");
        kl.set_needs_calibration(true);
        kl.set_needs_quantized(true);
        kl.set_needs_hidden_states(true);
        kl.set_gives_costs(true);
        v1::RegisterWorkerResponse response;
        registered =
            Call(*stubs.workers, &v1::WorkerService::Stub::RegisterWorker, request, &response).ok();
        if (!registered) absl::SleepFor(absl::Milliseconds(20));
        continue;
      }
      v1::LeaseTasksRequest request;
      request.set_worker_id(id_);
      request.set_incarnation(incarnation);
      request.set_max_tasks(1);
      request.set_wait_seconds(1);
      v1::LeaseTasksResponse response;
      if (!Call(*stubs.workers, &v1::WorkerService::Stub::LeaseTasks, request, &response).ok()) {
        absl::SleepFor(absl::Milliseconds(20));
        continue;
      }
      for (const v1::Lease& lease : response.leases()) Work(stubs, lease, incarnation);
    }
  }

  void Work(Stubs& stubs, const v1::Lease& lease, const std::string& incarnation) {
    absl::SleepFor(absl::Milliseconds(delay_ms.load()));
    v1::CompleteTaskRequest request;
    request.set_worker_id(id_);
    request.set_incarnation(incarnation);
    request.set_task(lease.task());
    request.set_epoch(lease.epoch());
    request.set_completion_id(RandomHex(8));
    while (!stop_) {
      // An upload or a completion that meets a server that is away is tried until it is back.
      absl::StatusOr<v1::TaskOutput> output = OutputOf(stubs, lease);
      if (output.ok()) {
        *request.mutable_output() = *output;
        v1::CompleteTaskResponse response;
        absl::Status status =
            Call(*stubs.workers, &v1::WorkerService::Stub::CompleteTask, request, &response);
        if (status.ok()) ++completed_;
        if (!absl::IsUnavailable(status)) return;
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
  }

  static absl::Status AddBlob(Stubs& stubs, const std::string& name, const std::string& content,
                              v1::TaskOutput& output) {
    LWQ_ASSIGN_OR_RETURN(const v1::BlobRef blob, WriteBlob(stubs, content));
    v1::NamedBlob& named = *output.add_blobs();
    named.set_name(name);
    *named.mutable_blob() = blob;
    return absl::OkStatus();
  }

  static absl::StatusOr<v1::TaskOutput> OutputOf(Stubs& stubs, const v1::Lease& lease) {
    v1::TaskOutput output;
    output.set_seconds(0.1);
    const v1::TaskSpec& spec = lease.spec();
    if (spec.has_ingest()) *output.mutable_ingest() = Manifest(spec.ingest().directory());
    if (spec.has_preflight()) output.mutable_preflight();
    if (spec.has_calibrate()) {
      EXPECT_EQ(spec.calibrate().model().manifest().inventory().num_layers(), kLayers);
      LWQ_RETURN_IF_ERROR(AddBlob(stubs, "hidden.0", "states", output));
    }
    if (spec.has_quantize()) {
      EXPECT_EQ(lease.inputs_size(), 1) << "the calibration segment of the layer";
      for (const v1::UnitFormats& unit : spec.quantize().units()) {
        for (const std::string& format : unit.formats()) {
          const std::string name = UnitBlobName(unit.unit(), format);
          LWQ_RETURN_IF_ERROR(AddBlob(stubs, name, name, output));
        }
      }
    }
    if (spec.has_score()) {
      EXPECT_EQ(lease.inputs_size(), 2);
      v1::ScoreResult& score = *output.mutable_score();
      score.set_layer(spec.score().layer());
      score.set_has_costs(true);
      for (const v1::UnitFormats& unit : spec.score().units()) {
        for (int f = 0; f < unit.formats_size(); ++f) {
          v1::UnitCost& cost = *score.add_costs();
          cost.set_unit(unit.unit());
          cost.set_format(unit.formats(f));
          cost.set_cost(1.0 / (2 + f));
        }
      }
    }
    if (spec.has_trial()) output.mutable_trial()->set_kl(0.5);
    if (spec.has_assemble()) {
      EXPECT_EQ(lease.inputs_size(), kLayers);
      LWQ_RETURN_IF_ERROR(AddBlob(stubs, "model.safetensors", std::string(700'000, 'm'), output));
    }
    if (spec.has_verify()) {
      LWQ_RETURN_IF_ERROR(AddBlob(stubs, "lwq-manifest.json", "{}", output));
    }
    if (spec.has_evaluate()) {
      output.mutable_evaluate()->set_subject(spec.evaluate().subject());
      output.mutable_evaluate()->mutable_choice()->add_items()->set_gold(1);
    }
    return output;
  }

  const std::string address_;
  const std::string id_;
  std::atomic<bool> stop_{false};
  std::atomic<int> completed_{0};
  std::thread thread_;
};

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::err);
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    ASSERT_OK(MakeDirectories(path("model")));
    ASSERT_OK(WriteFileAtomically(path("model/config.json"), "{}"));
    options_.listen = absl::StrCat("unix:", path("s"));
    options_.data_directory = path("data");
    options_.dispatch.lease_ttl_us = 5'000'000;
    StartServer();
  }
  void StartServer() {
    server_.reset();
    LWQ_ASSERT_OK_AND_ASSIGN(server_, Server::Start(options_));
    stubs_ = std::make_unique<Stubs>(server_->address());
  }
  std::string path(const std::string& name) const { return JoinPath(directory_->path(), name); }

  void AddModel() {
    v1::CreateModelRequest request;
    request.set_model_id("m");
    request.mutable_source()->set_directory(path("model"));
    v1::Model model;
    ASSERT_OK(Call(*stubs_->models, &v1::ModelService::Stub::CreateModel, request, &model));
    v1::GetModelRequest get;
    get.set_name("models/m");
    get.set_wait_seconds(20);
    ASSERT_OK(Call(*stubs_->models, &v1::ModelService::Stub::GetModel, get, &model));
    ASSERT_EQ(model.state(), v1::Model::ACTIVE);
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(*stubs_, "some text"));
    v1::CreateDatasetRequest dataset;
    dataset.set_dataset_id("text");
    *dataset.mutable_dataset()->mutable_blob() = blob;
    dataset.mutable_dataset()->set_kind(v1::Dataset::TEXT);
    v1::Dataset made;
    ASSERT_OK(Call(*stubs_->datasets, &v1::DatasetService::Stub::CreateDataset, dataset, &made));
  }

  static v1::CreateJobRequest JobRequest(double bits_per_weight) {
    v1::CreateJobRequest request;
    v1::QuantizeSpec& spec = *request.mutable_job()->mutable_spec()->mutable_quantize();
    spec.set_model("models/m");
    spec.mutable_budget()->set_bits_per_weight(bits_per_weight);
    spec.mutable_calibration()->set_dataset("datasets/text");
    spec.mutable_evaluation()->set_text_dataset("datasets/text");
    return request;
  }

  absl::StatusOr<v1::Job> Submit(const v1::CreateJobRequest& request) {
    v1::Job job;
    LWQ_RETURN_IF_ERROR(Call(*stubs_->jobs, &v1::JobService::Stub::CreateJob, request, &job));
    return job;
  }

  // Every event from `resume` to the end of the stream.
  absl::StatusOr<std::vector<v1::JobEvent>> Watch(const std::string& job, int64_t resume = 0) {
    Stubs own(server_->address());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_resume_seq(resume);
    auto reader = own.jobs->WatchJob(&context, request);
    std::vector<v1::JobEvent> events;
    v1::JobEvent event;
    while (reader->Read(&event)) events.push_back(event);
    LWQ_RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
    return events;
  }

  v1::Job GetJob(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    EXPECT_OK(Call(*stubs_->jobs, &v1::JobService::Stub::GetJob, request, &job));
    return job;
  }

  std::unique_ptr<TempDirectory> directory_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Stubs> stubs_;
};

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

TEST_F(ServerTest, ARestartInTheMiddleLosesNothing) {
  ScriptedWorker worker(server_->address(), "w");
  AddModel();
  worker.delay_ms = 30;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  const int before = worker.completed();
  while (worker.completed() < before + 4) absl::SleepFor(absl::Milliseconds(5));
  StartServer();
  EXPECT_FALSE(IsTerminal(GetJob(job.name()).state()));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto events, Watch(job.name(), 1));
  // Resumed after the first event: every number once, in order, to the end.
  int64_t seq = 1;
  for (const v1::JobEvent& event : events) {
    if (event.has_progress() || event.has_bookmark()) continue;
    EXPECT_EQ(event.seq(), ++seq);
  }
  EXPECT_EQ(events.back().state().to(), v1::Job::SUCCEEDED);
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

TEST_F(ServerTest, AForeignAddressIsRefusedWithoutAuthentication) {
  ServerOptions options = options_;
  options.listen = "0.0.0.0:0";
  options.data_directory = path("other");
  EXPECT_THAT(Server::Start(options), FailsWith("ADDRESS_NOT_ALLOWED", _));
}

}  // namespace
}  // namespace lwq
