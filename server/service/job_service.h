// JobService: validation and the edge of the state machine. Semantics:
// proto/lwq/v1/job_service.proto.
#pragma once

#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "server/service/call.h"

namespace lwq {

class JobServiceImpl final : public v1::JobService::CallbackService {
 public:
  explicit JobServiceImpl(ServiceEnv& env) : env_(env) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateJob(grpc::CallbackServerContext* context,
                                      const v1::UpdateJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* RetryJob(grpc::CallbackServerContext* context,
                                     const v1::RetryJobRequest* request,
                                     v1::Job* response) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context,
                                      const v1::DeleteJobRequest* request,
                                      v1::DeleteJobResponse* response) override;
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* context,
                                                   const v1::WatchJobRequest* request) override;
  grpc::ServerUnaryReactor* PlanJob(grpc::CallbackServerContext* context,
                                    const v1::PlanJobRequest* request,
                                    v1::PlanJobResponse* response) override;
  grpc::ServerUnaryReactor* ListTasks(grpc::CallbackServerContext* context,
                                      const v1::ListTasksRequest* request,
                                      v1::ListTasksResponse* response) override;

 private:
  absl::Status DoCreate(const Caller& caller, const v1::CreateJobRequest& request,
                        v1::Job& response);
  absl::Status DoList(const Caller& caller, const v1::ListJobsRequest& request,
                      v1::ListJobsResponse& response);
  absl::Status DoUpdate(const Caller& caller, const v1::UpdateJobRequest& request,
                        v1::Job& response);
  absl::Status DoCancel(const Caller& caller, const v1::CancelJobRequest& request,
                        v1::Job& response);
  absl::Status DoDelete(const Caller& caller, const v1::DeleteJobRequest& request);
  absl::Status DoRetry(const Caller& caller, const v1::RetryJobRequest& request, v1::Job& response);
  absl::Status DoPlan(const Caller& caller, const v1::PlanJobRequest& request,
                      v1::PlanJobResponse& response);
  absl::Status DoListTasks(const Caller& caller, const v1::ListTasksRequest& request,
                           v1::ListTasksResponse& response);
  absl::Status ReadJob(const Caller& caller, const std::string& name, v1::Job& response);

  ServiceEnv& env_;
};

// The stream of one watcher; deletes itself.
grpc::ServerWriteReactor<v1::JobEvent>* NewWatchCall(ServiceEnv& env,
                                                     grpc::CallbackServerContext* context,
                                                     const v1::WatchJobRequest& request);

}  // namespace lwq
