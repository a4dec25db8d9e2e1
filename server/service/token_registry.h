// The tokens that a server knows: stored as hashes, looked up in memory. One server writes them at
// a time (the leader of a shared store), so memory is what is true: one that is revoked opens
// nothing from that moment.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "proto/lwq/v1/token.pb.h"
#include "proto/lwq/v1/token_service.pb.h"
#include "server/service/request_log.h"
#include "server/store/store.h"

namespace lwq {

// A token that may be shown. What was let in with it asks IsGood again while it stays.
class LiveToken {
 public:
  LiveToken(v1::Token token, std::string secret_sha256);
  const v1::Token& token() const { return token_; }  // as it was made
  const std::string& secret_sha256() const { return secret_sha256_; }
  void Revoke() { revoked_ = true; }
  // UNAUTHENTICATED TOKEN_REVOKED or TOKEN_EXPIRED.
  absl::Status IsGood(absl::Time now) const;

 private:
  const v1::Token token_;
  const std::string secret_sha256_;
  std::atomic<bool> revoked_;
};

// Thread-safe; what changes tokens has to run on one thread (ServiceEnv::write).
class TokenRegistry {
 public:
  // `admin_token_file`: "", or a file with a token "lwq_admin_..." that is an admin's; made when it
  // is not there. `store`, `clock` outlive this.
  TokenRegistry(Store* store, Clock* clock, std::string admin_token_file);

  // Reads what is stored, and the admin's file. STORE_CORRUPT, TOKEN_FILE_INVALID.
  absl::Status Load();
  // Takes a new admin's token when its file has changed. An error leaves the old one.
  absl::Status ReloadAdminToken();

  // The token of a text that a caller shows. UNAUTHENTICATED: TOKEN_INVALID for one that is not
  // known, TOKEN_EXPIRED or TOKEN_REVOKED for one that was: only who has the secret is told so.
  absl::StatusOr<std::shared_ptr<const LiveToken>> Find(absl::string_view text) const;

  // See token_service.proto.
  absl::StatusOr<v1::CreateTokenResponse> Create(const v1::CreateTokenRequest& request,
                                                 const std::string& creator);
  absl::StatusOr<v1::ListTokensResponse> List(const v1::ListTokensRequest& request) const;
  absl::StatusOr<v1::Token> Revoke(const v1::RevokeTokenRequest& request);

 private:
  void Put(const v1::Token& token, const std::string& secret_sha256);
  absl::StatusOr<v1::TokenRecord> Read(const std::string& name) const;
  // Of tokens whose end is long past.
  std::vector<Write> RemovalsOfOld() const;
  absl::Status LoadAdminToken();

  Store* const store_;
  Clock* const clock_;
  const std::string admin_token_file_;
  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<LiveToken>> tokens_ ABSL_GUARDED_BY(mu_);  // by name
};

}  // namespace lwq
