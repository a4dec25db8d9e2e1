#include "client/session.h"

#include <stdlib.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/rpc/channel.h"
#include "base/rpc/tls.h"
#include "base/status_macros.h"
#include "client/interrupt.h"

namespace lwq::client {
namespace {

std::string FlagOrEnvironment(const Flags& flags, const char* flag, const char* variable) {
  if (flags.Has(flag)) return flags.Get(flag);
  const char* value = ::getenv(variable);
  return value != nullptr ? value : "";
}

std::string NamedServer(const Flags& flags) {
  return FlagOrEnvironment(flags, "server", "LWQ_SERVER");
}

// Of a server that was named; the own one is on a socket that is the user's alone.
TlsOptions TlsOf(const Flags& flags) {
  return {.ca_file = FlagOrEnvironment(flags, "tls-ca", "LWQ_TLS_CA"),
          .cert_file = FlagOrEnvironment(flags, "tls-cert", "LWQ_TLS_CERT"),
          .key_file = FlagOrEnvironment(flags, "tls-key", "LWQ_TLS_KEY")};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::OpenService(const Flags& flags) {
  std::unique_ptr<Session> session(new Session);
  LWQ_RETURN_IF_ERROR(session->ReadTimeout(flags));
  CatchInterrupts();
  std::string address = NamedServer(flags);
  if (address.empty()) {
    LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
    LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, EmbeddedPaths::Of(data));
    if (!IsEmbeddedRunning(paths)) {
      return PreconditionFailure("NO_SERVER",
                                 absl::StrCat("no server was named and none runs on ", data));
    }
    LWQ_ASSIGN_OR_RETURN(session->embedded_, Embedded::Start(data, {}, CheckInterrupted));
    address = session->embedded_->paths().address;
  }
  const TlsOptions tls = session->embedded_ == nullptr ? TlsOf(flags) : TlsOptions();
  LWQ_RETURN_IF_ERROR(session->Connect(address, tls));
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::OpenEmbedded(const Flags& flags) {
  std::unique_ptr<Session> session(new Session);
  LWQ_RETURN_IF_ERROR(session->ReadTimeout(flags));
  CatchInterrupts();
  std::string address = NamedServer(flags);
  if (address.empty()) {
    LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
    EmbeddedOptions options;
    constexpr int64_t kMostThreads = 4096;
    LWQ_RETURN_IF_ERROR(flags.GetInt("threads", 1, 1, kMostThreads).status());
    options.threads = flags.Get("threads");
    LWQ_ASSIGN_OR_RETURN(const int64_t memory, flags.GetBytes("memory"));
    if (memory > 0) options.memory_bytes = absl::StrCat(memory);
    LWQ_ASSIGN_OR_RETURN(session->embedded_, Embedded::Start(data, options, CheckInterrupted));
    address = session->embedded_->paths().address;
  }
  const TlsOptions tls = session->embedded_ == nullptr ? TlsOf(flags) : TlsOptions();
  LWQ_RETURN_IF_ERROR(session->Connect(address, tls));
  return session;
}

absl::Status Session::ReadTimeout(const Flags& flags) {
  constexpr int64_t kMostSeconds = 1'000'000'000;
  LWQ_ASSIGN_OR_RETURN(const int64_t seconds, flags.GetInt("timeout", 0, 1, kMostSeconds));
  if (seconds > 0) deadline_ = absl::Now() + absl::Seconds(seconds);
  return absl::OkStatus();
}

absl::Status Session::Connect(const std::string& address, const TlsOptions& tls) {
  ClientOptions options;
  options.address = address;
  LWQ_ASSIGN_OR_RETURN(options.credentials, ClientCredentials(tls));
  options.may_go_on = [this] { return MayGoOn(); };
  if (embedded_ == nullptr) {
    LWQ_RETURN_IF_ERROR(CheckAddress(address));
    // A server that was never reached is more likely a wrong address than one that starts again. Of
    // several servers one may be about to take over.
    ClientOptions first = options;
    first.retry_for = absl::StrContains(address, ',') ? absl::Seconds(30) : absl::Seconds(3);
    LWQ_RETURN_IF_ERROR(Client(std::move(first)).GetServerInfo().status());
  }
  client_ = std::make_unique<Client>(std::move(options));
  return absl::OkStatus();
}

absl::Status Session::MayGoOn() {
  LWQ_RETURN_IF_ERROR(CheckInterrupted());
  if (absl::Now() > deadline_) {
    return Failure(absl::StatusCode::kDeadlineExceeded, "TIMEOUT", "--timeout has passed");
  }
  return embedded_ == nullptr ? absl::OkStatus() : embedded_->CheckAlive();
}

void Session::Close() {
  client_.reset();
  if (embedded_ != nullptr) embedded_->Release();
  embedded_.reset();
}

}  // namespace lwq::client
