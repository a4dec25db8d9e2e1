// Two tenants on one server: what each sees of the other, by every method; what operators see;
// quotas; and a token that is one worker's.
#include "server/service/tenancy.h"

#include <map>

#include "base/failure_details.h"
#include "base/rpc/channel.h"
#include "base/rpc/tls.h"
#include "base/rpc/token.h"
#include "gmock/gmock.h"
#include "proto/lwq/v1/token_service.grpc.pb.h"
#include "tests/server/service/server_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// Stubs that show a token.
struct Member {
  explicit Member(std::shared_ptr<grpc::Channel> shared)
      : channel(std::move(shared)),
        jobs(v1::JobService::NewStub(channel)),
        models(v1::ModelService::NewStub(channel)),
        datasets(v1::DatasetService::NewStub(channel)),
        artifacts(v1::ArtifactService::NewStub(channel)),
        blobs(v1::BlobService::NewStub(channel)),
        workers(v1::WorkerService::NewStub(channel)),
        admin(v1::AdminService::NewStub(channel)),
        tokens(v1::TokenService::NewStub(channel)) {}
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<v1::DatasetService::Stub> datasets;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts;
  std::unique_ptr<v1::BlobService::Stub> blobs;
  std::unique_ptr<v1::WorkerService::Stub> workers;
  std::unique_ptr<v1::AdminService::Stub> admin;
  std::unique_ptr<v1::TokenService::Stub> tokens;
};

class TenantsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    options_.admin_token_file = path("admin.token");
    StartServer();
    admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
    acme_ = Make(v1::Token::CLIENT, "acme");
    other_ = Make(v1::Token::CLIENT, "other");
  }

  std::shared_ptr<grpc::Channel> ChannelWith(const std::string& token_file) {
    auto credentials = WithToken(nullptr, token_file, server_->address());
    EXPECT_OK(credentials.status());
    return MakeChannel(server_->address(), *credentials);
  }
  std::unique_ptr<Member> Make(v1::Token::Role role, const std::string& tenant,
                               const std::string& worker = "") {
    v1::CreateTokenRequest request;
    request.mutable_token()->set_principal("somebody");
    request.mutable_token()->set_role(role);
    request.mutable_token()->set_tenant(tenant);
    request.mutable_token()->set_worker(worker);
    v1::CreateTokenResponse made;
    EXPECT_OK(Call(*admin_->tokens, &v1::TokenService::Stub::CreateToken, request, &made));
    EXPECT_EQ(made.token().tenant(), tenant);
    const std::string file = path(absl::StrCat("token", ++num_tokens_));
    EXPECT_OK(WriteFileAtomically(file, made.secret()));
    return std::make_unique<Member>(ChannelWith(file));
  }

  absl::StatusOr<v1::Model> AddModel(Member& who, const std::string& id = "") {
    v1::CreateModelRequest request;
    request.set_model_id(id);
    request.mutable_source()->set_directory(path("model"));
    v1::Model model;
    LWQ_RETURN_IF_ERROR(Call(*who.models, &v1::ModelService::Stub::CreateModel, request, &model));
    return model;
  }
  // Until every model is verified, and the job has ended if one is named.
  bool IsOver(const std::string& job) {
    v1::ListModelsRequest list;
    list.set_all_tenants(true);
    v1::ListModelsResponse models;
    EXPECT_OK(Call(*admin_->models, &v1::ModelService::Stub::ListModels, list, &models));
    for (const v1::Model& model : models.models()) {
      if (model.state() == v1::Model::VERIFYING) return false;
    }
    if (job.empty()) return true;
    v1::GetJobRequest get;
    get.set_name(job);
    v1::Job found;
    EXPECT_OK(Call(*admin_->jobs, &v1::JobService::Stub::GetJob, get, &found));
    return IsTerminal(found.state());
  }
  void RunUntilOver(const std::string& job = "") {
    const auto worker = Make(v1::Token::WORKER, "");
    v1::RegisterWorkerResponse registered;
    ASSERT_OK(Call(*worker->workers, &v1::WorkerService::Stub::RegisterWorker,
                   Registration("w", "0123456789abcdef"), &registered));
    while (true) {
      v1::LeaseTasksRequest poll;
      poll.set_worker_id("w");
      poll.set_incarnation("0123456789abcdef");
      poll.set_max_tasks(1);
      v1::LeaseTasksResponse leases;
      ASSERT_OK(Call(*worker->workers, &v1::WorkerService::Stub::LeaseTasks, poll, &leases));
      if (leases.leases().empty()) {
        if (IsOver(job)) return;
        absl::SleepFor(absl::Milliseconds(2));
        continue;
      }
      const v1::Lease& lease = leases.leases(0);
      v1::CompleteTaskRequest done;
      done.set_worker_id("w");
      done.set_incarnation("0123456789abcdef");
      done.set_task(lease.task());
      done.set_epoch(lease.epoch());
      Stubs stubs = StubsOf(*worker);
      LWQ_ASSERT_OK_AND_ASSIGN(*done.mutable_output(), ScriptedWorker::OutputOf(stubs, lease));
      v1::CompleteTaskResponse completed;
      ASSERT_OK(Call(*worker->workers, &v1::WorkerService::Stub::CompleteTask, done, &completed));
    }
  }
  Stubs StubsOf(Member& who) {
    Stubs stubs(server_->address());
    stubs.blobs = v1::BlobService::NewStub(who.channel);
    return stubs;
  }
  static v1::CreateJobRequest JobOf(const std::string& model) {
    v1::CreateJobRequest request;
    v1::QuantizeSpec& spec = *request.mutable_job()->mutable_spec()->mutable_quantize();
    spec.set_model(model);
    spec.mutable_budget()->set_bits_per_weight(5.0);
    spec.set_method("gptq");
    spec.set_allocator("uniform");
    return request;
  }
  absl::StatusOr<v1::Job> Submit(Member& who, const v1::CreateJobRequest& request) {
    v1::Job job;
    LWQ_RETURN_IF_ERROR(Call(*who.jobs, &v1::JobService::Stub::CreateJob, request, &job));
    return job;
  }
  std::vector<std::string> JobsOf(Member& who, const std::string& tenant = "", bool all = false) {
    v1::ListJobsRequest request;
    request.set_tenant(tenant);
    request.set_all_tenants(all);
    v1::ListJobsResponse jobs;
    EXPECT_OK(Call(*who.jobs, &v1::JobService::Stub::ListJobs, request, &jobs));
    std::vector<std::string> names;
    for (const v1::Job& job : jobs.jobs()) names.push_back(job.name());
    return names;
  }

  std::unique_ptr<Member> admin_, acme_, other_;
  int num_tokens_ = 0;
};

// Calls every method that names a job, a model, a dataset or an artifact; what each answered.
std::map<std::string, absl::Status> AskEverything(Member& who, const std::string& job,
                                                  const std::string& model,
                                                  const std::string& dataset,
                                                  const std::string& artifact) {
  std::map<std::string, absl::Status> answers;
  const auto ask = [&](auto& stub, auto method, auto request, auto response, const char* name) {
    answers[name] = Call(stub, method, request, &response);
  };
  using Jobs = v1::JobService::Stub;
  using Models = v1::ModelService::Stub;
  using Datasets = v1::DatasetService::Stub;
  using Artifacts = v1::ArtifactService::Stub;
  const auto named = [](auto request, const std::string& name) {
    request.set_name(name);
    return request;
  };
  ask(*who.jobs, &Jobs::GetJob, named(v1::GetJobRequest(), job), v1::Job(), "GetJob");
  ask(*who.jobs, &Jobs::UpdateJob, named(v1::UpdateJobRequest(), job), v1::Job(), "UpdateJob");
  ask(*who.jobs, &Jobs::CancelJob, named(v1::CancelJobRequest(), job), v1::Job(), "CancelJob");
  ask(*who.jobs, &Jobs::RetryJob, named(v1::RetryJobRequest(), job), v1::Job(), "RetryJob");
  ask(*who.jobs, &Jobs::DeleteJob, named(v1::DeleteJobRequest(), job), v1::DeleteJobResponse(),
      "DeleteJob");
  v1::ListTasksRequest tasks;
  tasks.set_job(job);
  ask(*who.jobs, &Jobs::ListTasks, tasks, v1::ListTasksResponse(), "ListTasks");
  v1::PlanJobRequest plan;
  plan.mutable_spec()->set_model(model);
  plan.mutable_spec()->mutable_budget()->set_bits_per_weight(5.0);
  ask(*who.jobs, &Jobs::PlanJob, plan, v1::PlanJobResponse(), "PlanJob");
  v1::CreateJobRequest create;
  *create.mutable_job()->mutable_spec()->mutable_quantize() = plan.spec();
  ask(*who.jobs, &Jobs::CreateJob, create, v1::Job(), "CreateJob");
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::WatchJobRequest watch;
    watch.set_name(job);
    auto reader = who.jobs->WatchJob(&context, watch);
    v1::JobEvent event;
    EXPECT_FALSE(reader->Read(&event));
    answers["WatchJob"] = FromGrpcStatus(reader->Finish());
  }
  ask(*who.models, &Models::GetModel, named(v1::GetModelRequest(), model), v1::Model(), "GetModel");
  ask(*who.models, &Models::DeleteModel, named(v1::DeleteModelRequest(), model),
      v1::DeleteModelResponse(), "DeleteModel");
  ask(*who.datasets, &Datasets::GetDataset, named(v1::GetDatasetRequest(), dataset), v1::Dataset(),
      "GetDataset");
  ask(*who.datasets, &Datasets::DeleteDataset, named(v1::DeleteDatasetRequest(), dataset),
      v1::DeleteDatasetResponse(), "DeleteDataset");
  ask(*who.artifacts, &Artifacts::GetArtifact, named(v1::GetArtifactRequest(), artifact),
      v1::Artifact(), "GetArtifact");
  ask(*who.artifacts, &Artifacts::DeleteArtifact, named(v1::DeleteArtifactRequest(), artifact),
      v1::DeleteArtifactResponse(), "DeleteArtifact");
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::ReadArtifactRequest read;
    read.set_name(artifact);
    read.set_file("model.safetensors");
    auto reader = who.artifacts->ReadArtifact(&context, read);
    v1::ReadArtifactResponse chunk;
    EXPECT_FALSE(reader->Read(&chunk));
    answers["ReadArtifact"] = FromGrpcStatus(reader->Finish());
  }
  return answers;
}

// A tenant with a job that ended well, and all that it needed.
TEST_F(TenantsTest, WhatAnotherHasIsNotThereWhateverIsAsked) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model model, AddModel(*acme_));
  EXPECT_EQ(model.tenant(), "acme");
  RunUntilOver();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(*acme_, JobOf(model.name())));
  EXPECT_EQ(job.tenant(), "acme");
  RunUntilOver(job.name());
  v1::GetJobRequest get;
  get.set_name(job.name());
  v1::Job done;
  ASSERT_OK(Call(*acme_->jobs, &v1::JobService::Stub::GetJob, get, &done));
  ASSERT_EQ(done.state(), v1::Job::SUCCEEDED) << done.failure().message();
  Stubs stubs = StubsOf(*acme_);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(stubs, "secret text"));
  v1::CreateDatasetRequest create;
  *create.mutable_dataset()->mutable_blob() = blob;
  create.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  v1::Dataset dataset;
  ASSERT_OK(Call(*acme_->datasets, &v1::DatasetService::Stub::CreateDataset, create, &dataset));

  const auto others =
      AskEverything(*other_, job.name(), model.name(), dataset.name(), done.artifact());
  const auto missing =
      AskEverything(*other_, "jobs/j-0", "models/m0", "datasets/d0", "artifacts/j-0");
  ASSERT_EQ(others.size(), 16);
  for (const auto& [method, status] : others) {
    EXPECT_EQ(ReasonOf(status), "NOT_FOUND") << method << ": " << status.message();
    EXPECT_EQ(ReasonOf(missing.at(method)), "NOT_FOUND") << method;
    // In the same words, but for the name.
    const auto without_name = [](std::string text) { return text.substr(0, text.rfind(' ')); };
    EXPECT_EQ(without_name(std::string(status.message())),
              without_name(std::string(missing.at(method).message())))
        << method;
  }
  EXPECT_THAT(JobsOf(*other_), IsEmpty());
  v1::ListModelsResponse models;
  ASSERT_OK(
      Call(*other_->models, &v1::ModelService::Stub::ListModels, v1::ListModelsRequest(), &models));
  EXPECT_THAT(models.models(), IsEmpty());
  v1::ListArtifactsResponse artifacts;
  ASSERT_OK(Call(*other_->artifacts, &v1::ArtifactService::Stub::ListArtifacts,
                 v1::ListArtifactsRequest(), &artifacts));
  EXPECT_THAT(artifacts.artifacts(), IsEmpty());
  v1::ListDatasetsResponse datasets;
  ASSERT_OK(Call(*other_->datasets, &v1::DatasetService::Stub::ListDatasets,
                 v1::ListDatasetsRequest(), &datasets));
  for (const v1::Dataset& seen : datasets.datasets()) {
    EXPECT_THAT(seen.name(), HasSubstr("datasets/builtin-")) << "the server's own";
  }
  EXPECT_GT(datasets.datasets_size(), 0);
  // Nothing of it was harmed, and its owner has it all.
  EXPECT_THAT(JobsOf(*acme_), ElementsAre(job.name()));
  EXPECT_THAT(JobsOf(*admin_), IsEmpty()) << "an operator's own tenant";
  EXPECT_THAT(JobsOf(*admin_, "acme"), ElementsAre(job.name()));
  EXPECT_THAT(JobsOf(*admin_, "", /*all=*/true), ElementsAre(job.name()));
  ASSERT_OK(Call(*admin_->jobs, &v1::JobService::Stub::GetJob, get, &done));
}

TEST_F(TenantsTest, AClientListsNoOtherTenant) {
  v1::ListJobsRequest request;
  request.set_tenant("other");
  v1::ListJobsResponse jobs;
  EXPECT_THAT(Call(*acme_->jobs, &v1::JobService::Stub::ListJobs, request, &jobs),
              FailsWith("NOT_FOUND", _));
  request.clear_tenant();
  request.set_all_tenants(true);
  EXPECT_THAT(Call(*acme_->jobs, &v1::JobService::Stub::ListJobs, request, &jobs),
              FailsWith("ROLE_REQUIRED", _));
}

// What two have alike, neither learns of.
TEST_F(TenantsTest, TheSameModelTextAndRequestAreEachTheirOwn) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model first, AddModel(*acme_));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model second, AddModel(*other_));
  EXPECT_NE(first.name(), second.name());
  EXPECT_EQ(second.state(), v1::Model::VERIFYING);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model named, AddModel(*acme_, "llama"));
  EXPECT_THAT(AddModel(*other_, "llama").status(),
              FailsWith("ALREADY_EXISTS", Not(HasSubstr("acme"))));

  Stubs acme = StubsOf(*acme_), other = StubsOf(*other_);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(acme, "the same text"));
  v1::FindMissingBlobsRequest find;
  *find.add_blobs() = blob;
  v1::FindMissingBlobsResponse missing;
  ASSERT_OK(Call(*other.blobs, &v1::BlobService::Stub::FindMissingBlobs, find, &missing));
  EXPECT_THAT(missing.missing(), SizeIs(1)) << "it has not sent it";
  v1::QueryWriteStatusRequest query;
  *query.mutable_blob() = blob;
  v1::QueryWriteStatusResponse status;
  ASSERT_OK(Call(*other.blobs, &v1::BlobService::Stub::QueryWriteStatus, query, &status));
  EXPECT_FALSE(status.complete());
  EXPECT_EQ(status.committed_bytes(), 0);
  v1::CreateDatasetRequest create;
  *create.mutable_dataset()->mutable_blob() = blob;
  create.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  create.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  v1::Dataset theirs, ours;
  EXPECT_THAT(Call(*other_->datasets, &v1::DatasetService::Stub::CreateDataset, create, &theirs),
              FailsWith("BLOB_MISSING", _));
  {
    grpc::ClientContext context;
    v1::ReadBlobRequest read;
    *read.mutable_blob() = blob;
    auto reader = other.blobs->ReadBlob(&context, read);
    v1::ReadBlobResponse chunk;
    EXPECT_FALSE(reader->Read(&chunk));
    EXPECT_THAT(FromGrpcStatus(reader->Finish()), FailsWith("BLOB_MISSING", _));
  }
  // Who has the text shows it by sending all of it; who has its digest alone cannot.
  {
    grpc::ClientContext context;
    v1::WriteBlobResponse response;
    auto writer = other.blobs->WriteBlob(&context, &response);
    v1::WriteBlobRequest request;
    *request.mutable_blob() = blob;
    request.set_data("another textt");
    request.set_finish_write(true);
    writer->Write(request);
    writer->WritesDone();
    EXPECT_THAT(FromGrpcStatus(writer->Finish()), FailsWith("DIGEST_MISMATCH", _));
  }
  ASSERT_OK(WriteBlob(other, "the same text").status());
  ASSERT_OK(Call(*acme_->datasets, &v1::DatasetService::Stub::CreateDataset, create, &ours));
  ASSERT_OK(Call(*other_->datasets, &v1::DatasetService::Stub::CreateDataset, create, &theirs));
  EXPECT_NE(ours.name(), theirs.name()) << "the same request id, of two tenants";
}

// A name is free again when its job is deleted, and what that job alone might use is not the next
// one's, whoever has it.
TEST_F(TenantsTest, AJobUnderADeletedJobsNameMeetsNothingOfIt) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model model, AddModel(*acme_));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model theirs, AddModel(*other_));
  RunUntilOver();
  const auto run = [&](Member& who, const std::string& of) -> absl::StatusOr<v1::Job> {
    v1::CreateJobRequest request = JobOf(of);
    request.set_job_id("same");
    request.mutable_job()->mutable_spec()->mutable_quantize()->set_no_cache(true);
    LWQ_RETURN_IF_ERROR(Submit(who, request).status());
    RunUntilOver("jobs/same");
    v1::GetJobRequest get;
    get.set_name("jobs/same");
    v1::Job job;
    LWQ_RETURN_IF_ERROR(Call(*who.jobs, &v1::JobService::Stub::GetJob, get, &job));
    v1::DeleteJobRequest remove;
    remove.set_name("jobs/same");
    v1::DeleteJobResponse removed;
    LWQ_RETURN_IF_ERROR(Call(*who.jobs, &v1::JobService::Stub::DeleteJob, remove, &removed));
    return job;
  };
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job first, run(*acme_, model.name()));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job again, run(*acme_, model.name()));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job others, run(*other_, theirs.name()));
  for (const v1::Job& job : {first, again, others}) {
    EXPECT_EQ(job.state(), v1::Job::SUCCEEDED) << job.failure().message();
    EXPECT_GT(job.progress().tasks_done(), 0);
    EXPECT_EQ(job.progress().tasks_cached(), 0) << job.tenant();
  }
}

TEST_F(TenantsTest, ATenantsQuotasHold) {
  options_.dispatch.tenants["acme"] = {.max_queued_jobs = 2, .max_bytes = 20};
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = Make(v1::Token::CLIENT, "acme");
  other_ = Make(v1::Token::CLIENT, "other");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model model, AddModel(*acme_));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model theirs, AddModel(*other_));
  RunUntilOver();
  ASSERT_OK(Submit(*acme_, JobOf(model.name())).status());
  ASSERT_OK(Submit(*acme_, JobOf(model.name())).status());
  const absl::Status third = Submit(*acme_, JobOf(model.name())).status();
  EXPECT_THAT(third, FailsWith("QUOTA_EXCEEDED", HasSubstr("2 jobs waiting, at most 2")));
  const std::vector<QuotaViolation> violations = QuotaViolationsOf(third);
  ASSERT_EQ(violations.size(), 1);
  EXPECT_EQ(violations[0].subject, "tenants/acme");
  EXPECT_THAT(violations[0].description, HasSubstr("at most 2"));
  ASSERT_OK(Submit(*other_, JobOf(theirs.name())).status()) << "another's quota is its own";

  Stubs acme = StubsOf(*acme_), other = StubsOf(*other_);
  ASSERT_OK(WriteBlob(acme, "123456789012345").status());
  EXPECT_THAT(WriteBlob(acme, "1234567890").status(), FailsWith("QUOTA_EXCEEDED", _));
  ASSERT_OK(WriteBlob(acme, "12345").status());
  ASSERT_OK(WriteBlob(acme, "12345").status()) << "what is there is there";
  ASSERT_OK(WriteBlob(other, "123456789012345678901234567890").status());
  v1::ListTenantsResponse tenants;
  ASSERT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                 &tenants));
  std::map<std::string, v1::Tenant> by_name;
  for (const v1::Tenant& tenant : tenants.tenants()) by_name[tenant.name()] = tenant;
  EXPECT_EQ(by_name["acme"].bytes(), 20);
  EXPECT_EQ(by_name["acme"].max_bytes(), 20);
  EXPECT_EQ(by_name["acme"].queued_jobs(), 2);
  EXPECT_EQ(by_name["other"].bytes(), 30);
  EXPECT_THAT(
      Call(*acme_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(), &tenants),
      FailsWith("ROLE_REQUIRED", _));
  // Counted from the records after a restart.
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  ASSERT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                 &tenants));
  for (const v1::Tenant& tenant : tenants.tenants()) by_name[tenant.name()] = tenant;
  EXPECT_EQ(by_name["acme"].bytes(), 20);
}

// What an upload declares is its tenant's from the first message on; what it leaves is after that.
TEST_F(TenantsTest, AnUnfinishedUploadIsItsTenantsAndReserved) {
  options_.dispatch.tenants["acme"] = {.max_bytes = 20};
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = Make(v1::Token::CLIENT, "acme");
  other_ = Make(v1::Token::CLIENT, "other");
  const std::string text = "a secret of 18 B..";
  v1::BlobRef blob;
  blob.set_sha256(Sha256Hex(text));
  blob.set_size_bytes(static_cast<int64_t>(text.size()));
  const auto committed = [&](Member& who) {
    v1::QueryWriteStatusRequest query;
    *query.mutable_blob() = blob;
    v1::QueryWriteStatusResponse status;
    EXPECT_OK(Call(*who.blobs, &v1::BlobService::Stub::QueryWriteStatus, query, &status));
    EXPECT_FALSE(status.complete());
    return status.committed_bytes();
  };
  const auto send = [&](Member& who, int64_t offset, const std::string& bytes) {
    grpc::ClientContext context;
    v1::WriteBlobResponse response;
    auto writer = who.blobs->WriteBlob(&context, &response);
    v1::WriteBlobRequest request;
    *request.mutable_blob() = blob;
    request.set_write_offset(offset);
    request.set_data(bytes);
    request.set_finish_write(true);
    writer->Write(request);
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  };
  Stubs acme = StubsOf(*acme_);
  {
    grpc::ClientContext context;
    v1::WriteBlobResponse response;
    auto writer = acme.blobs->WriteBlob(&context, &response);
    v1::WriteBlobRequest request;
    *request.mutable_blob() = blob;
    request.set_data(text.substr(0, 9));
    ASSERT_TRUE(writer->Write(request));
    while (committed(*acme_) < 9) absl::SleepFor(absl::Milliseconds(2));
    EXPECT_THAT(WriteBlob(acme, "abc").status(), FailsWith("QUOTA_EXCEEDED", _)) << "18 of 20";
    context.TryCancel();
    writer->Finish().error_code();
  }
  // Nine were left.
  const auto bytes = [&] {
    v1::ListTenantsResponse tenants;
    EXPECT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                   &tenants));
    for (const v1::Tenant& tenant : tenants.tenants()) {
      if (tenant.name() == "acme") return tenant.bytes();
    }
    return int64_t{0};
  };
  while (bytes() != 9) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_EQ(committed(*other_), 0);
  EXPECT_THAT(send(*other_, 9, text.substr(9)), FailsWith("OFFSET_MISMATCH", _));
  EXPECT_EQ(committed(*acme_), 9) << "it was not touched";
  // A server that starts again knows of it.
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = std::make_unique<Member>(ChannelWith(path("token3")));
  EXPECT_EQ(bytes(), 9);
  EXPECT_EQ(committed(*acme_), 9);
  ASSERT_OK(send(*acme_, 9, text.substr(9)));
  EXPECT_EQ(bytes(), 18);
}

TEST_F(TenantsTest, AWorkersTokenIsItsOwn) {
  const auto bound = Make(v1::Token::WORKER, "", "gpu-1");
  const auto family = Make(v1::Token::WORKER, "", "gpu-*");
  const auto enroll = [&](Member& who, const std::string& id) {
    v1::RegisterWorkerResponse response;
    return ReasonOf(Call(*who.workers, &v1::WorkerService::Stub::RegisterWorker,
                         Registration(id, "0123456789abcdef"), &response));
  };
  EXPECT_EQ(enroll(*bound, "gpu-1"), "OK");
  EXPECT_EQ(enroll(*bound, "gpu-2"), "ROLE_REQUIRED");
  EXPECT_EQ(enroll(*family, "gpu-2"), "OK");
  EXPECT_EQ(enroll(*family, "cpu-2"), "ROLE_REQUIRED");
  // Nor does it speak for another in any other call.
  const auto speak = [&](const std::string& id) {
    std::vector<std::string> reasons;
    const auto ask = [&](auto method, auto request, auto response) {
      request.set_worker_id(id);
      request.set_incarnation("0123456789abcdef");
      reasons.push_back(ReasonOf(Call(*bound->workers, method, request, &response)));
    };
    using Workers = v1::WorkerService::Stub;
    ask(&Workers::LeaseTasks, v1::LeaseTasksRequest(), v1::LeaseTasksResponse());
    ask(&Workers::Heartbeat, v1::HeartbeatRequest(), v1::HeartbeatResponse());
    ask(&Workers::CompleteTask, v1::CompleteTaskRequest(), v1::CompleteTaskResponse());
    ask(&Workers::FailTask, v1::FailTaskRequest(), v1::FailTaskResponse());
    ask(&Workers::ReleaseTasks, v1::ReleaseTasksRequest(), v1::ReleaseTasksResponse());
    return reasons;
  };
  EXPECT_THAT(speak("gpu-2"), ElementsAre("ROLE_REQUIRED", "ROLE_REQUIRED", "ROLE_REQUIRED",
                                          "ROLE_REQUIRED", "ROLE_REQUIRED"));
  EXPECT_THAT(speak("gpu-1"), ElementsAre("OK", "OK", "LEASE_LOST", "LEASE_LOST", "OK"));
}

TEST_F(TenantsTest, ATokenNamesATenantAndAWorkerThatCanBe) {
  const auto make = [&](const std::string& tenant, v1::Token::Role role,
                        const std::string& worker) {
    v1::CreateTokenRequest request;
    request.mutable_token()->set_principal("somebody");
    request.mutable_token()->set_role(role);
    request.mutable_token()->set_tenant(tenant);
    request.mutable_token()->set_worker(worker);
    v1::CreateTokenResponse made;
    return ReasonOf(Call(*admin_->tokens, &v1::TokenService::Stub::CreateToken, request, &made));
  };
  EXPECT_EQ(make("acme-2", v1::Token::CLIENT, ""), "OK");
  EXPECT_EQ(make("Acme", v1::Token::CLIENT, ""), "NAME_INVALID");
  EXPECT_EQ(make("*", v1::Token::CLIENT, ""), "NAME_INVALID");
  EXPECT_EQ(make("", v1::Token::WORKER, "gpu-1"), "OK");
  EXPECT_EQ(make("", v1::Token::WORKER, "*"), "NAME_INVALID");
  EXPECT_EQ(make("", v1::Token::WORKER, "gpu*1"), "NAME_INVALID");
  EXPECT_EQ(make("", v1::Token::CLIENT, "gpu-1"), "FIELD_INVALID");
}

}  // namespace
}  // namespace lwq::testing
