// TokenService. Semantics: proto/lwq/v1/token_service.proto.
#pragma once

#include "proto/lwq/v1/token_service.grpc.pb.h"
#include "server/service/call.h"
#include "server/service/token_registry.h"

namespace lwq {

class TokenServiceImpl final : public v1::TokenService::CallbackService {
 public:
  // `tokens` outlives it; null: the server takes none.
  TokenServiceImpl(ServiceEnv& env, TokenRegistry* tokens) : env_(env), tokens_(tokens) {}

  grpc::ServerUnaryReactor* CreateToken(grpc::CallbackServerContext* context,
                                        const v1::CreateTokenRequest* request,
                                        v1::CreateTokenResponse* response) override;
  grpc::ServerUnaryReactor* ListTokens(grpc::CallbackServerContext* context,
                                       const v1::ListTokensRequest* request,
                                       v1::ListTokensResponse* response) override;
  grpc::ServerUnaryReactor* RevokeToken(grpc::CallbackServerContext* context,
                                        const v1::RevokeTokenRequest* request,
                                        v1::Token* response) override;

 private:
  absl::Status CheckTaken() const;

  ServiceEnv& env_;
  TokenRegistry* const tokens_;
};

}  // namespace lwq
