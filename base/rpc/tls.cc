#include "base/rpc/tls.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

absl::Status Invalid(absl::string_view file, absl::string_view why) {
  return Failure(reasons::kTlsInvalid, absl::StrCat("reading ", file, ": ", why));
}

absl::StatusOr<std::string> ReadPem(const std::string& file) {
  if (file.empty()) return std::string();
  absl::StatusOr<std::string> pem = ReadFile(file, kMaxPemBytes);
  if (!pem.ok()) return Invalid(file, pem.status().message());
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
  if (certificate == nullptr) return Invalid(file, "there is no PEM certificate in it");
  return certificate;
}

// gRPC says nothing of a pair that does not match: every handshake would fail.
absl::Status CheckPair(const TlsOptions& options, const std::string& cert, const std::string& key) {
  LWQ_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(options.cert_file, cert));
  const Key parsed(PEM_read_bio_PrivateKey(Open(key).get(), nullptr, nullptr, nullptr),
                   &EVP_PKEY_free);
  if (parsed == nullptr) return Invalid(options.key_file, "there is no PEM key in it");
  if (X509_check_private_key(certificate.get(), parsed.get()) != 1) {
    return Invalid(options.key_file, absl::StrCat("it is not the key of ", options.cert_file));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return Invalid(options.cert_file, "the certificate has expired");
  }
  return absl::OkStatus();
}

struct Pems {
  std::string ca, cert, key;
};

absl::StatusOr<Pems> ReadPems(const TlsOptions& options) {
  Pems pems;
  LWQ_ASSIGN_OR_RETURN(pems.ca, ReadPem(options.ca_file));
  LWQ_ASSIGN_OR_RETURN(pems.cert, ReadPem(options.cert_file));
  LWQ_ASSIGN_OR_RETURN(pems.key, ReadPem(options.key_file));
  if (!options.ca_file.empty()) {
    LWQ_RETURN_IF_ERROR(ParseCertificate(options.ca_file, pems.ca).status());
  }
  if (options.cert_file.empty() != options.key_file.empty()) {
    return Failure(reasons::kTlsInvalid, "a certificate and its key are given together, or none");
  }
  if (!options.cert_file.empty()) LWQ_RETURN_IF_ERROR(CheckPair(options, pems.cert, pems.key));
  return pems;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const TlsOptions& options) {
  if (options.empty()) return std::shared_ptr<grpc::ChannelCredentials>();
  LWQ_ASSIGN_OR_RETURN(const Pems pems, ReadPems(options));
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = pems.ca;
  ssl.pem_cert_chain = pems.cert;
  ssl.pem_private_key = pems.key;
  return grpc::SslCredentials(ssl);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(
    const TlsOptions& options) {
  if (options.empty()) return grpc::InsecureServerCredentials();
  if (options.cert_file.empty()) {
    return Failure(reasons::kTlsInvalid, "a server needs a certificate and its key");
  }
  LWQ_ASSIGN_OR_RETURN(const Pems pems, ReadPems(options));
  grpc::SslServerCredentialsOptions ssl(
      options.ca_file.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                              : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = pems.ca;
  ssl.pem_key_cert_pairs.push_back({pems.key, pems.cert});
  return grpc::SslServerCredentials(ssl);
}

}  // namespace lwq
