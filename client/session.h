// A command's way to a server: one that is named, or the embedded pair.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/rpc/tls.h"
#include "client/client.h"
#include "client/embedded.h"
#include "client/flags.h"

namespace lwq::client {

// Which server a command talks to, and who says so.
struct Connection {
  std::string server;  // empty: the embedded pair of --data-dir
  TlsOptions tls;      // of a server that is named; the own one is on a socket that is the user's
  std::string token_file;  // likewise; empty: no token is shown
  std::string origin;      // "--server", "context prod (in use)"
};
// --server, else --context, $LWQ_SERVER, $LWQ_CONTEXT, the context in use, else the own. NOT_FOUND
// CONTEXT_UNKNOWN.
absl::StatusOr<Connection> ResolveConnection(const Flags& flags);

class Session {
 public:
  // The server that ResolveConnection names, else the embedded pair of --data-dir when it runs;
  // else FAILED_PRECONDITION NO_SERVER. Catches interrupts.
  static absl::StatusOr<std::unique_ptr<Session>> OpenService(const Flags& flags);
  // The server that ResolveConnection names, else the embedded pair, started when it does not run
  // with --device, --threads and --memory. Catches interrupts.
  static absl::StatusOr<std::unique_ptr<Session>> OpenEmbedded(const Flags& flags);

  Client* client() { return client_.get(); }
  // Null when a server was named.
  Embedded* embedded() { return embedded_.get(); }
  // OK, or why nothing should go on: Ctrl-C, --timeout, an embedded pair that was given up.
  absl::Status MayGoOn();
  // Gives the embedded pair up, in order.
  void Close();

 private:
  Session() = default;
  absl::Status ReadTimeout(const Flags& flags);
  // `connection`: how to a server that is named.
  absl::Status Connect(const std::string& address, const Connection& connection);

  absl::Time deadline_ = absl::InfiniteFuture();
  std::unique_ptr<Embedded> embedded_;
  std::unique_ptr<Client> client_;  // after embedded_: it goes first
};

}  // namespace lwq::client
