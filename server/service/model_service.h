// ModelService and DatasetService. Semantics: proto/lwq/v1/model_service.proto.
#pragma once

#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "server/service/call.h"

namespace lwq {

class ModelServiceImpl final : public v1::ModelService::CallbackService {
 public:
  explicit ModelServiceImpl(ServiceEnv& env) : env_(env) {}

  grpc::ServerUnaryReactor* CreateModel(grpc::CallbackServerContext* context,
                                        const v1::CreateModelRequest* request,
                                        v1::Model* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteModel(grpc::CallbackServerContext* context,
                                        const v1::DeleteModelRequest* request,
                                        v1::DeleteModelResponse* response) override;

 private:
  absl::Status DoCreate(const Caller& caller, const v1::CreateModelRequest& request,
                        v1::Model& response);
  absl::Status DoList(const Caller& caller, const v1::ListModelsRequest& request,
                      v1::ListModelsResponse& response);

  ServiceEnv& env_;
};

class DatasetServiceImpl final : public v1::DatasetService::CallbackService {
 public:
  explicit DatasetServiceImpl(ServiceEnv& env) : env_(env) {}

  grpc::ServerUnaryReactor* CreateDataset(grpc::CallbackServerContext* context,
                                          const v1::CreateDatasetRequest* request,
                                          v1::Dataset* response) override;
  grpc::ServerUnaryReactor* GetDataset(grpc::CallbackServerContext* context,
                                       const v1::GetDatasetRequest* request,
                                       v1::Dataset* response) override;
  grpc::ServerUnaryReactor* ListDatasets(grpc::CallbackServerContext* context,
                                         const v1::ListDatasetsRequest* request,
                                         v1::ListDatasetsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteDataset(grpc::CallbackServerContext* context,
                                          const v1::DeleteDatasetRequest* request,
                                          v1::DeleteDatasetResponse* response) override;

 private:
  absl::Status DoCreate(const Caller& caller, const v1::CreateDatasetRequest& request,
                        v1::Dataset& response);
  absl::Status DoList(const Caller& caller, const v1::ListDatasetsRequest& request,
                      v1::ListDatasetsResponse& response);
  absl::Status DoDelete(const Caller& caller, const v1::DeleteDatasetRequest& request);

  ServiceEnv& env_;
};

// Stores the dataset's record; its blob is there.
absl::Status PutDataset(Scheduler& scheduler, v1::Dataset& dataset, const RequestMark& mark = {});

}  // namespace lwq
