// The generated stubs on one channel; only client.cc includes this.
#pragma once

#include <memory>
#include <string>

#include "base/rpc/channel.h"
#include "client/client.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "proto/lwq/v1/token_service.grpc.pb.h"

namespace lwq::client {

struct Client::Stubs {
  explicit Stubs(const ClientOptions& options)
      : channel(MakeChannel(options.address, options.credentials)),
        job(v1::JobService::NewStub(channel)),
        model(v1::ModelService::NewStub(channel)),
        dataset(v1::DatasetService::NewStub(channel)),
        artifact(v1::ArtifactService::NewStub(channel)),
        blob(v1::BlobService::NewStub(channel)),
        admin(v1::AdminService::NewStub(channel)),
        token(v1::TokenService::NewStub(channel)) {}

  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::JobService::Stub> job;
  const std::unique_ptr<v1::ModelService::Stub> model;
  const std::unique_ptr<v1::DatasetService::Stub> dataset;
  const std::unique_ptr<v1::ArtifactService::Stub> artifact;
  const std::unique_ptr<v1::BlobService::Stub> blob;
  const std::unique_ptr<v1::AdminService::Stub> admin;
  const std::unique_ptr<v1::TokenService::Stub> token;
};

}  // namespace lwq::client
