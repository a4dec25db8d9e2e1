// A whole server over a Unix socket under a clock that the test moves, with a store that can be
// made to fail, and a worker whose results are made up.
#pragma once

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <atomic>
#include <climits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rpc/grpc_status.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
#include "records/blob_names.h"
#include "server/dispatch/task_key.h"
#include "server/service/server.h"
#include "server/store/memory_store.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {

inline constexpr int kLayers = 3;

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

inline absl::StatusOr<v1::BlobRef> WriteBlob(Stubs& stubs, const std::string& content) {
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

inline v1::ModelManifest Manifest(const std::string& directory) {
  v1::ModelManifest manifest;
  manifest.set_digest(Sha256Hex("model"));
  manifest.set_family("llama");
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

// What a whole worker says of itself.
inline v1::RegisterWorkerRequest Registration(const std::string& id,
                                              const std::string& incarnation) {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(id);
  request.set_incarnation(incarnation);
  request.set_protocol(2);
  request.set_numerics_class("cpu-1");
  request.add_families("llama");
  for (absl::string_view kind : TaskKinds()) {
    v1::TaskKindVersion& known = *request.add_kinds();
    known.set_kind(std::string(kind));
    known.set_version(1);
  }
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
  return request;
}

// Leases, makes results up, completes. Stops by itself when told.
class ScriptedWorker {
 public:
  ScriptedWorker(std::string address, std::string id)
      : address_(std::move(address)), id_(std::move(id)), thread_([this] { Run(); }) {}
  ~ScriptedWorker() {
    stop_ = true;
    {
      MutexLock lock(&mu_);
      if (poll_ != nullptr) poll_->TryCancel();
    }
    thread_.join();
    // The server may hear later that the poll has ended, and would lease a task to nobody. It does
    // not to a poll of an earlier incarnation.
    Stubs stubs(address_);
    v1::RegisterWorkerResponse response;
    Call(*stubs.workers, &v1::WorkerService::Stub::RegisterWorker, Registration(id_, RandomHex(16)),
         &response)
        .IgnoreError();
  }
  int completed() const { return completed_; }
  // Holds every further task for so long.
  std::atomic<int> delay_ms{0};
  // Holds what it has when it has completed so many.
  std::atomic<int> most_completed{INT_MAX};

 private:
  void Run() {
    const std::string incarnation = RandomHex(16);
    Stubs stubs(address_);
    bool registered = false;
    while (!stop_) {
      if (!registered) {
        const v1::RegisterWorkerRequest request = Registration(id_, incarnation);
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
      grpc::ClientContext context;
      SetPoll(&context);
      const bool polled = stubs.workers->LeaseTasks(&context, request, &response).ok();
      SetPoll(nullptr);
      if (!polled) {
        absl::SleepFor(absl::Milliseconds(20));
        continue;
      }
      for (const v1::Lease& lease : response.leases()) Work(stubs, lease, incarnation);
    }
  }

  void SetPoll(grpc::ClientContext* context) {
    MutexLock lock(&mu_);
    poll_ = context;
    if (poll_ != nullptr && stop_) poll_->TryCancel();
  }

  void Work(Stubs& stubs, const v1::Lease& lease, const std::string& incarnation) {
    absl::SleepFor(absl::Milliseconds(delay_ms.load()));
    while (completed_ >= most_completed && !stop_) absl::SleepFor(absl::Milliseconds(1));
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

 public:
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
      // A worker reads the layers from the files that it compares with the manifest.
      EXPECT_GT(spec.calibrate().model().manifest().files_size(), 0);
      EXPECT_FALSE(spec.calibrate().model().manifest().has_inventory());
      const v1::CalibrateTask& task = spec.calibrate();
      for (int l = task.first_layer(); l < task.end_layer(); ++l) {
        v1::LayerValues& values = *output.mutable_calibrate()->add_layers();
        values.set_layer(l);
        (*values.mutable_values())["layer-cosine"] = 0.5;
        LWQ_RETURN_IF_ERROR(AddBlob(stubs, absl::StrCat("hidden.", l), "states", output));
      }
      LWQ_RETURN_IF_ERROR(
          AddBlob(stubs, absl::StrCat("state.", task.end_layer()), "state", output));
    }
    if (spec.has_quantize()) {
      EXPECT_EQ(lease.inputs_size(), 1) << "the calibration segment of the layer";
      for (const v1::UnitFormats& unit : spec.quantize().units()) {
        for (const std::string& format : unit.formats()) {
          const std::string name = UnitBlobName(unit.unit(), format);
          LWQ_RETURN_IF_ERROR(AddBlob(stubs, name, name, output));
          v1::LinearReport& linear = *output.mutable_quantize()->mutable_report()->add_linears();
          linear.set_unit(unit.unit());
          linear.set_format(format);
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
    if (spec.has_assemble()) {
      output.mutable_assemble()->set_weight_file_bytes(700'000);
    }
    if (spec.has_verify()) {
      output.mutable_verify();
      LWQ_RETURN_IF_ERROR(AddBlob(stubs, "lwq-manifest.json", "{}", output));
    }
    if (spec.has_evaluate()) {
      output.mutable_evaluate()->set_subject(spec.evaluate().subject());
      output.mutable_evaluate()->set_dataset(spec.evaluate().dataset_name());
      output.mutable_evaluate()->mutable_choice()->add_items()->set_gold(1);
    }
    return output;
  }

 private:
  const std::string address_;
  const std::string id_;
  std::atomic<bool> stop_{false};
  std::atomic<int> completed_{0};
  Mutex mu_;
  grpc::ClientContext* poll_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::thread thread_;
};

// A store in memory that outlives servers, counts reads, and can be full or slow.
class TestStore : public Store {
 public:
  explicit TestStore(MemoryStore* rows) : rows_(rows) {}
  absl::Status Commit(const std::vector<Write>& writes) override {
    if (before_commit) before_commit(writes);
    if (full) {
      return Failure(absl::StatusCode::kResourceExhausted, "STORE_FULL", "the disk is full");
    }
    return rows_->Commit(writes);
  }
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override {
    ++reads;
    return rows_->GetMany(table, keys);
  }
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override {
    ++reads;
    return rows_->List(table, query);
  }
  absl::string_view name() const override { return "test"; }
  bool shared() const override { return false; }

  std::atomic<bool> full{false};
  std::atomic<int64_t> reads{0};
  std::function<void(const std::vector<Write>&)> before_commit;  // set before the server runs

 private:
  MemoryStore* const rows_;
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
    options_.clock = &clock_;
    StartServer();
  }
  void StartServer() {
    server_.reset();
    ServerParts parts;
    auto store = std::make_unique<TestStore>(&rows_);
    store_ = store.get();
    store_->before_commit = before_commit_;
    parts.store = std::move(store);
    LWQ_ASSERT_OK_AND_ASSIGN(server_, Server::Start(options_, std::move(parts)));
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

  // Moves time on in steps that a server at work looks at one by one, however busy the machine is:
  // one that finds that much has passed since its last look takes itself for one that stood still.
  void Advance(absl::Duration duration, absl::Duration step = absl::Milliseconds(500)) {
    const absl::Duration end = clock_.Steady() + duration;
    while (clock_.Steady() < end) {
      clock_.Advance(std::min(step, end - clock_.Steady()));
      do {
        absl::SleepFor(absl::Milliseconds(3));
      } while (clock_.looked() < clock_.Steady());
    }
  }

  std::unique_ptr<TempDirectory> directory_;
  SimulatedClock clock_;
  MemoryStore rows_;
  TestStore* store_ = nullptr;
  std::function<void(const std::vector<Write>&)> before_commit_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Stubs> stubs_;
};

}  // namespace lwq::testing
