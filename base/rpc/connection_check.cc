#include "base/rpc/connection_check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// How a client of HTTP/2 begins, with settings that change none. A server answers with its own.
constexpr char kSettingsFrame = 4;
constexpr absl::string_view kGreeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);

// OpenSSL writes to sockets that may be closed at the other end, by a call that may end the
// process.
class NoBrokenPipeSignal {
 public:
  NoBrokenPipeSignal() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~NoBrokenPipeSignal() {
    const timespec at_once = {};
    while (sigtimedwait(&signal_, nullptr, &at_once) > 0) continue;
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoBrokenPipeSignal(const NoBrokenPipeSignal&) = delete;
  NoBrokenPipeSignal& operator=(const NoBrokenPipeSignal&) = delete;

 private:
  sigset_t signal_, before_;
};

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

bool WaitFor(int fd, short events, absl::Time deadline) {
  pollfd wait = {fd, events, 0};
  const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
  return ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(left, 0))) > 0;
}

bool ConnectTo(int fd, const sockaddr* address, socklen_t size, absl::Time deadline) {
  if (fd < 0) return false;
  if (::connect(fd, address, size) == 0) return true;
  if (errno != EINPROGRESS || !WaitFor(fd, POLLOUT, deadline)) return false;
  int error = 0;
  socklen_t length = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

struct Endpoint {
  std::string host;  // or the path of a Unix socket
  std::string port;  // empty: of a Unix socket
  std::string text() const { return LogSafe(port.empty() ? host : absl::StrCat(host, ":", port)); }
};

// -1 when nobody takes the connection.
int Connect(const Endpoint& to, absl::Time deadline) {
  constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (to.port.empty()) {
    sockaddr_un path = {};
    path.sun_family = AF_UNIX;
    if (to.host.size() >= sizeof path.sun_path) return -1;
    std::memcpy(path.sun_path, to.host.data(), to.host.size());
    const int fd = ::socket(AF_UNIX, kType, 0);
    if (ConnectTo(fd, reinterpret_cast<const sockaddr*>(&path), sizeof path, deadline)) return fd;
    if (fd >= 0) ::close(fd);
    return -1;
  }
  addrinfo wanted = {};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(to.host.c_str(), to.port.c_str(), &wanted, &found) != 0) return -1;
  int connected = -1;
  for (const addrinfo* one = found; one != nullptr && connected < 0; one = one->ai_next) {
    const int fd = ::socket(one->ai_family, kType, 0);
    if (ConnectTo(fd, one->ai_addr, one->ai_addrlen, deadline)) {
      connected = fd;
    } else if (fd >= 0) {
      ::close(fd);
    }
  }
  ::freeaddrinfo(found);
  return connected;
}

absl::Status Refused(const Endpoint& to, absl::string_view why) {
  return Failure(reasons::kTlsInvalid, absl::StrCat("connecting with ", to.text(), ": ", why));
}

absl::Status Silent(const Endpoint& to) {
  return absl::UnavailableError(
      absl::StrCat(to.text(),
                   " takes connections and says nothing: something else than lwq-server "
                   "listens there, or it is stuck"));
}

// A client's side of TLS on a socket.
class TlsSide {
 public:
  // `host` is the name that the certificate has to have; empty: anybody's will do.
  TlsSide(int fd, const TlsFiles& files, const std::string& host)
      : context_(SSL_CTX_new(TLS_client_method())) {
    // The handshake goes on whatever is found, which SSL_get_verify_result tells: else there would
    // be no certificate to read the names of.
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
    SSL_CTX_set_cert_cb(
        context_,
        [](SSL*, void* side) {
          static_cast<TlsSide*>(side)->asked_ = true;
          return 1;
        },
        this);
    if (files.ca.empty()) SSL_CTX_set_default_verify_paths(context_);
    AddAuthorities(files.ca);
    UseCertificate(files);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd);
    constexpr unsigned char kProtocol[] = {2, 'h', '2'};
    SSL_set_alpn_protos(ssl_, kProtocol, sizeof kProtocol);
    if (host.empty()) return;
    in6_addr ignored;
    const bool is_ip = ::inet_pton(AF_INET, host.c_str(), &ignored) == 1 ||
                       ::inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
    if (is_ip) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), host.c_str());
    } else {
      SSL_set_tlsext_host_name(ssl_, host.c_str());
      SSL_set1_host(ssl_, host.c_str());
    }
  }
  ~TlsSide() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsSide(const TlsSide&) = delete;
  TlsSide& operator=(const TlsSide&) = delete;

  SSL* ssl() const { return ssl_; }
  // Whether the server has asked for this side's certificate.
  bool asked() const { return asked_; }

  // What `step` (SSL_connect and the like) ends with, waiting as it asks to: above 0 when done,
  // else SSL_get_error's code; SSL_ERROR_WANT_READ where the time is over.
  template <typename Step>
  int Run(const Step& step, absl::Time deadline, int* error) {
    while (true) {
      ERR_clear_error();
      const int done = step(ssl_);
      *error = done > 0 ? SSL_ERROR_NONE : SSL_get_error(ssl_, done);
      if (*error != SSL_ERROR_WANT_READ && *error != SSL_ERROR_WANT_WRITE) return done;
      const short events = *error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
      if (!WaitFor(SSL_get_fd(ssl_), events, deadline)) return 0;
    }
  }

 private:
  void AddAuthorities(const std::string& pem) {
    BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    while (X509* authority = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr)) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), authority);
      X509_free(authority);
    }
    BIO_free(bio);
  }
  void UseCertificate(const TlsFiles& files) {
    if (files.cert.empty()) return;
    BIO* cert = BIO_new_mem_buf(files.cert.data(), static_cast<int>(files.cert.size()));
    BIO* key = BIO_new_mem_buf(files.key.data(), static_cast<int>(files.key.size()));
    X509* certificate = PEM_read_bio_X509(cert, nullptr, nullptr, nullptr);
    EVP_PKEY* parsed = PEM_read_bio_PrivateKey(key, nullptr, nullptr, nullptr);
    if (certificate != nullptr) SSL_CTX_use_certificate(context_, certificate);
    while (X509* more = PEM_read_bio_X509(cert, nullptr, nullptr, nullptr)) {
      SSL_CTX_add0_chain_cert(context_, more);
    }
    if (parsed != nullptr) SSL_CTX_use_PrivateKey(context_, parsed);
    X509_free(certificate);
    EVP_PKEY_free(parsed);
    BIO_free(cert);
    BIO_free(key);
  }

  SSL_CTX* const context_;
  SSL* ssl_ = nullptr;
  bool asked_ = false;
};

// "a, b" of the names that a server's certificate is for.
std::string NamesOf(SSL* ssl) {
  std::vector<std::string> names;
  X509* certificate = SSL_get1_peer_certificate(ssl);
  if (certificate == nullptr) return "nobody";
  auto* all = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(all); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all, i);
    char text[INET6_ADDRSTRLEN] = "";
    if (name->type == GEN_DNS) {
      const ASN1_STRING* dns = name->d.dNSName;
      names.push_back(LogSafe(absl::string_view(
          reinterpret_cast<const char*>(ASN1_STRING_get0_data(dns)), ASN1_STRING_length(dns))));
    } else if (name->type == GEN_IPADD) {
      const ASN1_STRING* ip = name->d.iPAddress;
      const int family = ASN1_STRING_length(ip) == 4 ? AF_INET : AF_INET6;
      names.push_back(::inet_ntop(family, ASN1_STRING_get0_data(ip), text, sizeof text));
    }
  }
  GENERAL_NAMES_free(all);
  X509_free(certificate);
  return names.empty() ? "no name" : absl::StrJoin(names, ", ");
}

// Of a handshake that the server's certificate ended.
absl::Status NotTaken(const Endpoint& to, SSL* ssl, long result, const TlsOptions& tls,
                      const std::string& host) {
  const char* what = X509_verify_cert_error_string(result);
  switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return Refused(to, absl::StrCat("its certificate is for ", NamesOf(ssl), " and not for ",
                                      LogSafe(host), ": name it so in --server"));
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return Refused(to, absl::StrCat("its certificate is not valid now (", what,
                                      "): the server needs a new one"));
    default:
      break;
  }
  const std::string by = tls.ca_file.empty()
                             ? "none that this machine trusts; give --tls-ca FILE"
                             : absl::StrCat("not the one of --tls-ca ", LogSafe(tls.ca_file));
  return Refused(to, absl::StrCat("the authority of its certificate is ", by, " (", what, ")"));
}

// Of a server that ends a handshake, or the connection after it, by an alert or without a word; OK
// where that says nothing of certificates.
absl::Status RefusedByServer(const Endpoint& to, const TlsOptions& tls, bool asked) {
  if (!asked) return absl::OkStatus();
  if (tls.cert_file.empty()) {
    return Refused(to, "it asks for a certificate: give --tls-cert FILE and --tls-key FILE");
  }
  return Refused(to, absl::StrCat("it does not take --tls-cert ", LogSafe(tls.cert_file),
                                  ": give a certificate of its authority"));
}

bool IsNoTls(int error) {
  const int reason = ERR_GET_REASON(ERR_peek_last_error());
  return error == SSL_ERROR_SSL &&
         (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_PACKET_LENGTH_TOO_LONG ||
          reason == SSL_R_HTTP_REQUEST || reason == SSL_R_UNEXPECTED_MESSAGE);
}

absl::Status CheckTls(const Endpoint& to, const TlsOptions& tls, const TlsFiles& files,
                      const std::string& host, absl::Time deadline) {
  const Socket socket(Connect(to, deadline));
  if (socket.fd() < 0) return absl::OkStatus();
  TlsSide side(socket.fd(), files, host);
  int error = 0;
  if (side.Run(SSL_connect, deadline, &error) <= 0) {
    if (error == SSL_ERROR_WANT_READ) return Silent(to);
    if (IsNoTls(error)) {
      return Refused(to, "it does not speak TLS: leave out --tls-ca, --tls-cert and --tls-key");
    }
    return RefusedByServer(to, tls, side.asked());
  }
  const long result = SSL_get_verify_result(side.ssl());
  if (result != X509_V_OK) return NotTaken(to, side.ssl(), result, tls, host);
  // Whether it takes this side's certificate a server of TLS 1.3 says after the handshake.
  char answer[1];
  SSL_write(side.ssl(), kGreeting.data(), static_cast<int>(kGreeting.size()));
  const auto read = [&](SSL* ssl) { return SSL_read(ssl, answer, sizeof answer); };
  if (side.Run(read, deadline, &error) > 0) return absl::OkStatus();
  return error == SSL_ERROR_WANT_READ ? Silent(to) : RefusedByServer(to, tls, side.asked());
}

bool SpeaksTls(const Endpoint& to, absl::Time deadline) {
  const Socket socket(Connect(to, deadline));
  if (socket.fd() < 0) return false;
  TlsSide side(socket.fd(), TlsFiles(), /*host=*/"");
  int error = 0;
  // One that wants a certificate ends the handshake with an alert, which is TLS as well.
  return side.Run(SSL_connect, deadline, &error) > 0 ||
         (error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_last_error()) >= SSL_AD_REASON_OFFSET);
}

absl::Status CheckClear(const Endpoint& to, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  const Socket socket(Connect(to, deadline));
  if (socket.fd() < 0) return absl::OkStatus();
  if (::send(socket.fd(), kGreeting.data(), kGreeting.size(), MSG_NOSIGNAL) < 0) {
    return absl::OkStatus();
  }
  if (!WaitFor(socket.fd(), POLLIN, deadline)) return Silent(to);
  char answer[4] = {};
  const bool is_settings =
      ::recv(socket.fd(), answer, sizeof answer, 0) == sizeof answer && answer[3] == kSettingsFrame;
  // A server of TLS ends what does not begin with a handshake.
  if (is_settings || to.port.empty() || !SpeaksTls(to, absl::Now() + patience)) {
    return absl::OkStatus();
  }
  return Refused(to, "it speaks TLS: give --tls-ca FILE, the authority of its certificate");
}

std::vector<Endpoint> EndpointsOf(absl::string_view address) {
  if (absl::ConsumePrefix(&address, "unix:")) return {{std::string(address), ""}};
  std::vector<Endpoint> endpoints;
  for (absl::string_view one : absl::StrSplit(address, ',')) {
    one = absl::StripAsciiWhitespace(one);
    absl::ConsumePrefix(&one, "dns:///");
    const size_t colon = one.rfind(':');
    if (colon == absl::string_view::npos) continue;
    absl::string_view host = one.substr(0, colon);
    if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
    endpoints.push_back({std::string(host), std::string(one.substr(colon + 1))});
  }
  return endpoints;
}

}  // namespace

absl::Status CheckConnection(const std::string& address, const TlsOptions& tls,
                             absl::Duration patience) {
  LWQ_ASSIGN_OR_RETURN(const TlsFiles files, ReadTlsFiles(tls));
  const NoBrokenPipeSignal no_signal;
  const std::vector<Endpoint> endpoints = EndpointsOf(address);
  for (const Endpoint& endpoint : endpoints) {
    // The certificates of a list name its first server (channel.cc).
    const absl::Status found =
        tls.empty() ? CheckClear(endpoint, patience)
                    : CheckTls(endpoint, tls, files, endpoints[0].host, absl::Now() + patience);
    // Of several servers another one may be about to lead.
    if (!found.ok() && (endpoints.size() == 1 || !absl::IsUnavailable(found))) return found;
  }
  return absl::OkStatus();
}

}  // namespace lwq
