// Transport security of both sides, by PEM files: who a server is, and who may talk to it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpc/grpc_security.h"
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

// What the files hold, checked: they are there, are PEM, belong together, and are valid today.
struct TlsFiles {
  std::string ca, cert, key;
  absl::Time cert_expires = absl::InfiniteFuture();  // without a certificate: never
};
// INVALID_ARGUMENT "TLS_INVALID".
absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options);

// Null, which is no security, when `options` are empty; the system's authorities when only the
// ca_file is. INVALID_ARGUMENT "TLS_INVALID" for files that are not there, are no certificates, or
// do not belong together. Files that are renewed are used from the next connection on.
// They are looked at every `read_again`.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const TlsOptions& options, absl::Duration read_again = absl::Seconds(10));

// A server's certificate, key and authority, which may be renewed while it serves: connections that
// are made from then on see the new ones, those that are open stay. Thread-safe.
class ServerCertificates {
 public:
  enum class Clients {
    kMayHaveNone,  // one without a certificate gets through; one with another authority's does not
    kMustHaveOne,
  };
  // A server needs a certificate. What is asked of clients has a meaning with a ca_file alone.
  static absl::StatusOr<std::unique_ptr<ServerCertificates>> Load(const TlsOptions& options,
                                                                  Clients clients);

  // For one port of one server, which this has to outlive.
  std::shared_ptr<grpc::ServerCredentials> Credentials();

  // Reads the files again. True when they are new and taken; TLS_INVALID when they are new and
  // cannot be used, once: the old ones stay, and the same files are not complained of again.
  absl::StatusOr<bool> Reload();
  // When the certificate in use ends.
  absl::Time expire_time() const;

 private:
  ServerCertificates(const TlsOptions& options, Clients clients, TlsFiles files)
      : options_(options), clients_(clients), files_(std::move(files)) {}
  // Asked by gRPC at the start and before each handshake.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config);

  const TlsOptions options_;
  const Clients clients_;
  mutable Mutex mu_;
  TlsFiles files_ ABSL_GUARDED_BY(mu_);
  bool fetched_ ABSL_GUARDED_BY(mu_) = false;   // gRPC has files_
  std::string complaint_ ABSL_GUARDED_BY(mu_);  // of the files that were refused last
};

}  // namespace lwq
