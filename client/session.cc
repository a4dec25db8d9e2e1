#include "client/session.h"

#include <stdlib.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/rpc/connection_check.h"
#include "base/rpc/tls.h"
#include "base/rpc/token.h"
#include "base/status_macros.h"
#include "client/contexts.h"
#include "client/interrupt.h"

namespace lwq::client {
namespace {

// For a server's first answer; then it is looked at what takes its time, for so long.
constexpr absl::Duration kFirstAnswer = absl::Seconds(3);
constexpr absl::Duration kPatience = absl::Seconds(2);

std::string FlagOrEnvironment(const Flags& flags, const char* flag, const char* variable) {
  if (flags.Has(flag)) return flags.Get(flag);
  const char* value = ::getenv(variable);
  return value != nullptr ? value : "";
}

// Of a server that is named without a context: what flags and environment say.
TlsOptions TlsOf(const Flags& flags) {
  return {.ca_file = FlagOrEnvironment(flags, "tls-ca", "LWQ_TLS_CA"),
          .cert_file = FlagOrEnvironment(flags, "tls-cert", "LWQ_TLS_CERT"),
          .key_file = FlagOrEnvironment(flags, "tls-key", "LWQ_TLS_KEY")};
}

std::string TokenFileOf(const Flags& flags) {
  return FlagOrEnvironment(flags, "token-file", "LWQ_TOKEN_FILE");
}

std::string Variable(const char* name) {
  const char* value = ::getenv(name);
  return value != nullptr ? value : "";
}

absl::StatusOr<Connection> OfContext(const std::string& name, const Flags& flags,
                                     absl::string_view how) {
  Connection connection;
  connection.origin = absl::StrCat("context ", LogSafe(name), " (", how, ")");
  if (name.empty() || name == "local") return connection;
  LWQ_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
  LWQ_ASSIGN_OR_RETURN(const Context context, contexts.Find(name));
  connection.server = context.server;
  connection.tls = context.tls;
  connection.token_file = context.token_file;
  // A file that is named on the line goes before the context's.
  if (flags.Has("tls-ca")) connection.tls.ca_file = flags.Get("tls-ca");
  if (flags.Has("tls-cert")) connection.tls.cert_file = flags.Get("tls-cert");
  if (flags.Has("tls-key")) connection.tls.key_file = flags.Get("tls-key");
  if (flags.Has("token-file")) connection.token_file = flags.Get("token-file");
  return connection;
}

// The first call to a named server.
absl::Status Greet(ClientOptions options, const TlsOptions& tls) {
  ClientOptions first = options;
  first.call_timeout = kFirstAnswer;
  first.retry_for = absl::ZeroDuration();
  const absl::Status answered = Client(std::move(first)).GetServerInfo().status();
  if (!absl::IsUnavailable(answered) && !absl::IsDeadlineExceeded(answered)) return answered;
  LWQ_RETURN_IF_ERROR(CheckConnection(options.address, tls, kPatience));
  // A server that was never reached is more likely a wrong address than one that starts again. Of
  // several servers one may be about to take over.
  const bool several = absl::StrContains(options.address, ',');
  options.retry_for = several ? absl::Seconds(30) : absl::Seconds(3);
  return Client(std::move(options)).GetServerInfo().status();
}

}  // namespace

absl::StatusOr<Connection> ResolveConnection(const Flags& flags) {
  if (flags.Has("server")) {
    return Connection{flags.Get("server"), TlsOf(flags), TokenFileOf(flags), "--server"};
  }
  if (flags.Has("context")) return OfContext(flags.Get("context"), flags, "--context");
  if (const std::string server = Variable("LWQ_SERVER"); !server.empty()) {
    return Connection{server, TlsOf(flags), TokenFileOf(flags), "$LWQ_SERVER"};
  }
  if (const std::string name = Variable("LWQ_CONTEXT"); !name.empty()) {
    return OfContext(name, flags, "$LWQ_CONTEXT");
  }
  LWQ_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
  if (!contexts.current.empty()) return OfContext(contexts.current, flags, "in use");
  return Connection{"", {}, "", "nothing names another"};
}

absl::StatusOr<std::unique_ptr<Session>> Session::OpenService(const Flags& flags) {
  std::unique_ptr<Session> session(new Session);
  LWQ_RETURN_IF_ERROR(session->ReadTimeout(flags));
  CatchInterrupts();
  LWQ_ASSIGN_OR_RETURN(const Connection connection, ResolveConnection(flags));
  std::string address = connection.server;
  if (address.empty()) {
    LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
    LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, EmbeddedPaths::Of(data));
    if (!IsEmbeddedRunning(paths)) {
      return Failure(reasons::kNoServer,
                     absl::StrCat("no server was named and none runs on ", data));
    }
    LWQ_ASSIGN_OR_RETURN(session->embedded_, Embedded::Start(data, {}, CheckInterrupted));
    address = session->embedded_->paths().address;
  }
  LWQ_RETURN_IF_ERROR(session->Connect(address, connection));
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::OpenEmbedded(const Flags& flags) {
  std::unique_ptr<Session> session(new Session);
  LWQ_RETURN_IF_ERROR(session->ReadTimeout(flags));
  CatchInterrupts();
  LWQ_ASSIGN_OR_RETURN(const Connection connection, ResolveConnection(flags));
  std::string address = connection.server;
  if (address.empty()) {
    LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
    EmbeddedOptions options;
    constexpr int64_t kMostThreads = 4096;
    LWQ_RETURN_IF_ERROR(flags.GetInt("threads", 1, 1, kMostThreads).status());
    options.threads = flags.Get("threads");
    options.device = flags.Get("device");
    LWQ_ASSIGN_OR_RETURN(const int64_t memory, flags.GetBytes("memory"));
    if (memory > 0) options.memory_bytes = absl::StrCat(memory);
    LWQ_ASSIGN_OR_RETURN(session->embedded_, Embedded::Start(data, options, CheckInterrupted));
    address = session->embedded_->paths().address;
  }
  LWQ_RETURN_IF_ERROR(session->Connect(address, connection));
  return session;
}

absl::Status Session::ReadTimeout(const Flags& flags) {
  constexpr int64_t kMostSeconds = 1'000'000'000;
  LWQ_ASSIGN_OR_RETURN(const int64_t seconds, flags.GetInt("timeout", 0, 1, kMostSeconds));
  if (seconds > 0) deadline_ = absl::Now() + absl::Seconds(seconds);
  return absl::OkStatus();
}

absl::Status Session::Connect(const std::string& address, const Connection& connection) {
  ClientOptions options;
  options.address = address;
  options.may_go_on = [this] { return MayGoOn(); };
  if (embedded_ == nullptr) {
    LWQ_RETURN_IF_ERROR(CheckAddress(address));
    LWQ_ASSIGN_OR_RETURN(options.credentials, ClientCredentials(connection.tls));
    LWQ_ASSIGN_OR_RETURN(options.credentials,
                         WithToken(std::move(options.credentials), connection.token_file, address));
    const absl::Status greeted = Greet(options, connection.tls);
    // Of a server that nobody named on the line, by what it was found.
    const bool found = connection.origin != "--server";
    LWQ_RETURN_IF_ERROR(found ? Annotate(greeted, connection.origin) : greeted);
  }
  client_ = std::make_unique<Client>(std::move(options));
  return absl::OkStatus();
}

absl::Status Session::MayGoOn() {
  LWQ_RETURN_IF_ERROR(CheckInterrupted());
  if (absl::Now() > deadline_) {
    return Failure(reasons::kTimeout, "--timeout has passed");
  }
  return embedded_ == nullptr ? absl::OkStatus() : embedded_->CheckAlive();
}

void Session::Close() {
  client_.reset();
  if (embedded_ != nullptr) embedded_->Release();
  embedded_.reset();
}

}  // namespace lwq::client
