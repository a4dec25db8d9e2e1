#include "server/service/token_service.h"

#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "TokenService";

}  // namespace

absl::Status TokenServiceImpl::CheckTaken() const {
  if (tokens_ != nullptr) return absl::OkStatus();
  return Failure(reasons::kTokensNotTaken,
                 "this server lets callers in without tokens or by certificates alone");
}

grpc::ServerUnaryReactor* TokenServiceImpl::CreateToken(grpc::CallbackServerContext* context,
                                                        const v1::CreateTokenRequest* request,
                                                        v1::CreateTokenResponse* response) {
  return RunUnaryAs(env_, context, kServiceName, "CreateToken", *env_.write,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckTaken());
                      LWQ_ASSIGN_OR_RETURN(*response, tokens_->Create(*request, caller.name));
                      return absl::OkStatus();
                    },
                    {request, response});
}

grpc::ServerUnaryReactor* TokenServiceImpl::ListTokens(grpc::CallbackServerContext* context,
                                                       const v1::ListTokensRequest* request,
                                                       v1::ListTokensResponse* response) {
  return RunUnary(env_, context, kServiceName, "ListTokens", *env_.read, [=, this]() -> absl::Status {
    LWQ_RETURN_IF_ERROR(CheckTaken());
    LWQ_ASSIGN_OR_RETURN(*response, tokens_->List(*request));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* TokenServiceImpl::RevokeToken(grpc::CallbackServerContext* context,
                                                        const v1::RevokeTokenRequest* request,
                                                        v1::Token* response) {
  return RunUnary(env_, context, kServiceName, "RevokeToken", *env_.write,
                  [=, this]() -> absl::Status {
                    LWQ_RETURN_IF_ERROR(CheckTaken());
                    LWQ_ASSIGN_OR_RETURN(*response, tokens_->Revoke(*request));
                    return absl::OkStatus();
                  },
                  {request, response});
}

}  // namespace lwq
