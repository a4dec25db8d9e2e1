// Two tenants, "acme" and "other", on one server, and its admin: each with a token.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/rpc/channel.h"
#include "base/rpc/token.h"
#include "proto/lwq/v1/token_service.grpc.pb.h"
#include "tests/server/service/server_fixture.h"

namespace lwq::testing {

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

}  // namespace lwq::testing
