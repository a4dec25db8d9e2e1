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

class Session {
 public:
  // --server, else $LWQ_SERVER, else the embedded pair of --data-dir when it runs; else
  // FAILED_PRECONDITION NO_SERVER. Catches interrupts.
  static absl::StatusOr<std::unique_ptr<Session>> OpenService(const Flags& flags);
  // --server or $LWQ_SERVER when given, else the embedded pair, started when it does not run with
  // --threads and --memory. Catches interrupts.
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
  absl::Status Connect(const std::string& address, const TlsOptions& tls);

  absl::Time deadline_ = absl::InfiniteFuture();
  std::unique_ptr<Embedded> embedded_;
  std::unique_ptr<Client> client_;  // after embedded_: it goes first
};

}  // namespace lwq::client
