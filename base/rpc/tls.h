// Transport security of both sides, by PEM files: who a server is, and who may talk to it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace lwq {

struct TlsOptions {
  // The authorities whose certificates the other side may have. Of a server: with it every client
  // needs one, without it none is asked.
  std::string ca_file;
  // One's own chain of certificates, and its key. Of a client: none unless servers ask for it.
  std::string cert_file;
  std::string key_file;

  bool empty() const { return ca_file.empty() && cert_file.empty() && key_file.empty(); }
};

// Null, which is no security, when `options` are empty; the system's authorities when only the
// ca_file is. INVALID_ARGUMENT "TLS_INVALID" for files that are not there, are no certificates, or
// do not belong together.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const TlsOptions& options);
// The same for a server, which needs a certificate.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(
    const TlsOptions& options);

}  // namespace lwq
