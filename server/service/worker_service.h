// WorkerService and AdminService. Semantics: proto/lwq/v1/worker_service.proto,
// admin_service.proto.
#pragma once

#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
#include "server/service/call.h"
#include "server/service/collector.h"

namespace lwq {

class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(ServiceEnv& env) : env_(env) {}

  grpc::ServerUnaryReactor* RegisterWorker(grpc::CallbackServerContext* context,
                                           const v1::RegisterWorkerRequest* request,
                                           v1::RegisterWorkerResponse* response) override;
  grpc::ServerUnaryReactor* LeaseTasks(grpc::CallbackServerContext* context,
                                       const v1::LeaseTasksRequest* request,
                                       v1::LeaseTasksResponse* response) override;
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context,
                                      const v1::HeartbeatRequest* request,
                                      v1::HeartbeatResponse* response) override;
  grpc::ServerUnaryReactor* CompleteTask(grpc::CallbackServerContext* context,
                                         const v1::CompleteTaskRequest* request,
                                         v1::CompleteTaskResponse* response) override;
  grpc::ServerUnaryReactor* FailTask(grpc::CallbackServerContext* context,
                                     const v1::FailTaskRequest* request,
                                     v1::FailTaskResponse* response) override;
  grpc::ServerUnaryReactor* ReleaseTasks(grpc::CallbackServerContext* context,
                                         const v1::ReleaseTasksRequest* request,
                                         v1::ReleaseTasksResponse* response) override;

 private:
  absl::Status DoRegister(const v1::RegisterWorkerRequest& request,
                          v1::RegisterWorkerResponse& response);
  absl::Status DoComplete(const v1::CompleteTaskRequest& request);

  ServiceEnv& env_;
};

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  // `collector` outlives it.
  AdminServiceImpl(ServiceEnv& env, Collector* collector) : env_(env), collector_(collector) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* ListTenants(grpc::CallbackServerContext* context,
                                        const v1::ListTenantsRequest* request,
                                        v1::ListTenantsResponse* response) override;
  grpc::ServerUnaryReactor* CordonWorker(grpc::CallbackServerContext* context,
                                         const v1::CordonWorkerRequest* request,
                                         v1::Worker* response) override;
  grpc::ServerUnaryReactor* CollectGarbage(grpc::CallbackServerContext* context,
                                           const v1::CollectGarbageRequest* request,
                                           v1::CollectGarbageResponse* response) override;
  grpc::ServerUnaryReactor* DrainServer(grpc::CallbackServerContext* context,
                                        const v1::DrainServerRequest* request,
                                        v1::DrainServerResponse* response) override;

 private:
  ServiceEnv& env_;
  Collector* const collector_;
};

// All workers as they stand.
std::vector<v1::Worker> WorkersOf(const DispatchState& state, Moment now);

}  // namespace lwq
