// Two tenants on one server: what each sees of the other, by every method; what operators see;
// and a token that is one worker's.
#include "server/service/tenancy.h"

#include <map>

#include "gmock/gmock.h"
#include "tests/server/service/tenants_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

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

// Names that one tenant gave up and another took: neither a call that is sent again nor a job that
// is tried again may open what stands there now.
TEST_F(TenantsTest, ANameThatAnotherHasByNowOpensNothing) {
  v1::CreateModelRequest model_request;
  model_request.set_model_id("llama");
  model_request.mutable_source()->set_directory(path("model"));
  model_request.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  v1::Model model;
  const auto create_model = [&](Member& who) {
    return Call(*who.models, &v1::ModelService::Stub::CreateModel, model_request, &model);
  };
  ASSERT_OK(create_model(*acme_));
  RunUntilOver();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(*acme_, JobOf(model.name())));
  v1::CancelJobRequest cancel;
  cancel.set_name(job.name());
  v1::Job ignored;
  ASSERT_OK(Call(*acme_->jobs, &v1::JobService::Stub::CancelJob, cancel, &ignored));
  Stubs acme = StubsOf(*acme_), other = StubsOf(*other_);
  v1::CreateDatasetRequest dataset_request;
  dataset_request.set_dataset_id("text");
  dataset_request.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  dataset_request.set_request_id("11234567-89ab-cdef-0123-456789abcdef");
  LWQ_ASSERT_OK_AND_ASSIGN(*dataset_request.mutable_dataset()->mutable_blob(),
                           WriteBlob(acme, "acme's text"));
  v1::Dataset dataset;
  const auto create_dataset = [&](Member& who) {
    return Call(*who.datasets, &v1::DatasetService::Stub::CreateDataset, dataset_request, &dataset);
  };
  ASSERT_OK(create_dataset(*acme_));

  v1::DeleteModelRequest delete_model;
  delete_model.set_name("models/llama");
  v1::DeleteModelResponse no_model;
  ASSERT_OK(Call(*acme_->models, &v1::ModelService::Stub::DeleteModel, delete_model, &no_model));
  ASSERT_OK(create_model(*other_));
  RunUntilOver();
  v1::DeleteDatasetRequest delete_dataset;
  delete_dataset.set_name("datasets/text");
  v1::DeleteDatasetResponse no_dataset;
  ASSERT_OK(Call(*acme_->datasets, &v1::DatasetService::Stub::DeleteDataset, delete_dataset,
                 &no_dataset));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef theirs, WriteBlob(other, "the other's text"));
  v1::CreateDatasetRequest other_dataset = dataset_request;
  *other_dataset.mutable_dataset()->mutable_blob() = theirs;
  ASSERT_OK(
      Call(*other_->datasets, &v1::DatasetService::Stub::CreateDataset, other_dataset, &dataset));

  EXPECT_THAT(create_model(*acme_), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(create_dataset(*acme_), FailsWith("NOT_FOUND", _));
  v1::RetryJobRequest retry;
  retry.set_name(job.name());
  EXPECT_THAT(Call(*acme_->jobs, &v1::JobService::Stub::RetryJob, retry, &ignored),
              FailsWith("NOT_FOUND", HasSubstr("models/llama")));
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
