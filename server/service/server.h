// A whole server in one object: stores, executors, services, ports. main.cc and the cluster tests
// make one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/rpc/tls.h"
#include "server/blob/blob_store.h"
#include "server/dispatch/dispatch_state.h"
#include "server/service/caller_limits.h"
#include "server/service/collector.h"
#include "server/store/store.h"

namespace lwq {

struct ServerOptions {
  std::string listen;          // unix:/path, or host:port; port 0 takes a free one
  std::string data_directory;  // of the blobs, and of the store unless it has a URL
  std::string store_url;       // see server/store/open_store.h; empty: the data directory
  std::string blob_url;        // see server/blob/open_blob_store.h; empty: in the data directory
  TlsOptions tls;              // empty: none, and this machine alone may connect
  // Whether callers may show tokens. Then nobody is let in who shows neither one nor, where the
  // options of TLS name an authority, a certificate of it.
  bool takes_tokens = false;
  std::string admin_token_file;       // see TokenRegistry; not empty: it takes tokens
  std::string audit_log;              // see AuditLogOptions; empty: none
  CallerLimitsOptions caller_limits;  // where callers are known
  absl::Duration reload_interval = absl::Seconds(10);  // of certificates and the admin's token
  std::string metrics_listen;                          // host:port; empty: none
  std::vector<std::string> model_roots;                // empty: any absolute directory
  DispatchOptions dispatch;
  Retention retention;
  absl::Duration drain_budget = absl::Seconds(60);
  Clock* clock = Clock::Real();  // outlives the server
};

// Parts that are given; null: opened in the data directory.
struct ServerParts {
  std::unique_ptr<Store> store;
  std::unique_ptr<BlobStore> blobs;
};

class Server {
 public:
  // Serves when it returns. FAILED_PRECONDITION "STORE_LOCKED", "SCHEMA_TOO_NEW" and
  // INVALID_ARGUMENT "ADDRESS_NOT_ALLOWED" are configuration errors; UNAVAILABLE "ADDRESS_IN_USE".
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       ServerParts parts = {});
  ~Server();

  // Where clients reach it, and the metrics; the latter "" when there are none.
  const std::string& address() const;
  const std::string& metrics_address() const;

  // Returns when a drain was asked for, by RPC or RequestDrain.
  void WaitForDrainRequest();
  // Async-signal-unsafe; call from a thread.
  void RequestDrain();
  // No new calls, watchers and polls sent away, open calls finished, store closed. Once.
  void Drain();

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace lwq
