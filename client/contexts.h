// Servers by name, as a user keeps them: ~/.config/lwq/contexts.json, which the user alone may
// read.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/rpc/tls.h"

namespace lwq::client {

struct Context {
  std::string server;
  TlsOptions tls;
  std::string token_file;
};

struct Contexts {
  std::string current;  // empty: the own server of --data-dir
  std::map<std::string, Context> all;

  // NOT_FOUND CONTEXT_UNKNOWN lists the names there are.
  absl::StatusOr<Context> Find(const std::string& name) const;
};

// The folder of the user's settings: $XDG_CONFIG_HOME/lwq or ~/.config/lwq; "" without a home.
std::string ConfigDirectory();
std::string ContextsPath();

// None where there is no file. DATA_LOSS CONTEXTS_INVALID for one that cannot be read as such.
absl::StatusOr<Contexts> ReadContexts(const std::string& path);
// In one step, mode 0600, in a folder of mode 0700.
absl::Status WriteContexts(const std::string& path, const Contexts& contexts);

}  // namespace lwq::client
