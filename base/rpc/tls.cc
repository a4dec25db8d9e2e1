#include "base/rpc/tls.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace lwq {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

absl::Status InvalidFile(absl::string_view file, absl::string_view why) {
  return Failure(reasons::kTlsInvalid, absl::StrCat("reading ", file, ": ", why));
}

absl::StatusOr<std::string> ReadPem(const std::string& file) {
  if (file.empty()) return std::string();
  absl::StatusOr<std::string> pem = ReadFile(file, kMaxPemBytes);
  if (!pem.ok()) return InvalidFile(file, pem.status().message());
  return pem;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Open(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
}

// The first certificate of `pem`.
absl::StatusOr<Certificate> ParseCertificate(const std::string& file, const std::string& pem) {
  Certificate certificate(PEM_read_bio_X509(Open(pem).get(), nullptr, nullptr, nullptr),
                          &X509_free);
  if (certificate == nullptr) return InvalidFile(file, "there is no PEM certificate in it");
  return certificate;
}

// When the certificate ends. gRPC says nothing of a pair that does not match: every handshake would
// fail.
absl::StatusOr<absl::Time> CheckPair(const TlsOptions& options, const std::string& cert,
                                     const std::string& key) {
  LWQ_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(options.cert_file, cert));
  const Key parsed(PEM_read_bio_PrivateKey(Open(key).get(), nullptr, nullptr, nullptr),
                   &EVP_PKEY_free);
  if (parsed == nullptr) return InvalidFile(options.key_file, "there is no PEM key in it");
  if (X509_check_private_key(certificate.get(), parsed.get()) != 1) {
    return InvalidFile(options.key_file, absl::StrCat("it is not the key of ", options.cert_file));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0) {
    return InvalidFile(options.cert_file, "the certificate is not valid yet");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return InvalidFile(options.cert_file, "the certificate has expired");
  }
  tm end = {};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end);
  return absl::FromTM(end, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options) {
  TlsFiles files;
  LWQ_ASSIGN_OR_RETURN(files.ca, ReadPem(options.ca_file));
  LWQ_ASSIGN_OR_RETURN(files.cert, ReadPem(options.cert_file));
  LWQ_ASSIGN_OR_RETURN(files.key, ReadPem(options.key_file));
  if (!options.ca_file.empty()) {
    LWQ_RETURN_IF_ERROR(ParseCertificate(options.ca_file, files.ca).status());
  }
  if (options.cert_file.empty() != options.key_file.empty()) {
    return Failure(reasons::kTlsInvalid, "a certificate and its key are given together, or none");
  }
  if (!options.cert_file.empty()) {
    LWQ_ASSIGN_OR_RETURN(files.cert_expires, CheckPair(options, files.cert, files.key));
  }
  return files;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const TlsOptions& options, absl::Duration read_again) {
  if (options.empty()) return std::shared_ptr<grpc::ChannelCredentials>();
  LWQ_RETURN_IF_ERROR(ReadTlsFiles(options).status());
  grpc::experimental::TlsChannelCredentialsOptions tls;
  // A worker's connections outlive its certificate. This reads the files again, by itself.
  tls.set_certificate_provider(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.key_file, options.cert_file, options.ca_file,
      static_cast<unsigned>(absl::ToInt64Seconds(read_again))));
  if (!options.ca_file.empty()) tls.watch_root_certs();
  if (!options.cert_file.empty()) tls.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(tls);
}

namespace {

// gRPC's own C++ credentials keep the files that they were made with; the library below them asks.
class AskingCredentials final : public grpc::ServerCredentials {
 public:
  explicit AskingCredentials(grpc_server_credentials* credentials) : credentials_(credentials) {}
  ~AskingCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }
  grpc_server_credentials* const credentials_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ServerCertificates>> ServerCertificates::Load(
    const TlsOptions& options, Clients clients) {
  if (options.cert_file.empty()) {
    return Failure(reasons::kTlsInvalid, "a server needs a certificate and its key");
  }
  LWQ_ASSIGN_OR_RETURN(TlsFiles files, ReadTlsFiles(options));
  return std::unique_ptr<ServerCertificates>(
      new ServerCertificates(options, clients, std::move(files)));
}

std::shared_ptr<grpc::ServerCredentials> ServerCertificates::Credentials() {
  const grpc_ssl_client_certificate_request_type asked =
      options_.ca_file.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
      : clients_ == Clients::kMustHaveOne
          ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
          : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY;
  return std::make_shared<AskingCredentials>(grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(asked, &Fetch, this)));
}

grpc_ssl_certificate_config_reload_status ServerCertificates::Fetch(
    void* self, grpc_ssl_server_certificate_config** config) {
  auto* certificates = static_cast<ServerCertificates*>(self);
  MutexLock lock(&certificates->mu_);
  if (certificates->fetched_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  certificates->fetched_ = true;
  const TlsFiles& files = certificates->files_;
  const grpc_ssl_pem_key_cert_pair pair = {files.key.c_str(), files.cert.c_str()};
  // Debian's gRPC asserts that there are roots. Where no client is asked for a certificate nothing
  // is checked by them, and the server's own will do.
  const std::string& roots = files.ca.empty() ? files.cert : files.ca;
  *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

absl::StatusOr<bool> ServerCertificates::Reload() {
  absl::StatusOr<TlsFiles> files = ReadTlsFiles(options_);
  MutexLock lock(&mu_);
  if (!files.ok()) {
    const std::string complaint(files.status().message());
    if (complaint == complaint_) return false;
    complaint_ = complaint;
    return files.status();
  }
  complaint_.clear();
  if (files->ca == files_.ca && files->cert == files_.cert && files->key == files_.key) {
    return false;
  }
  files_ = *std::move(files);
  fetched_ = false;
  return true;
}

absl::Time ServerCertificates::expire_time() const {
  MutexLock lock(&mu_);
  return files_.cert_expires;
}

}  // namespace lwq
