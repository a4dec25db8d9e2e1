// Why a server cannot be talked to. gRPC says that a handshake failed, or nothing until its own
// time is over; this tries the steps by themselves and says which file, name or address is wrong.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/rpc/tls.h"

namespace lwq {

// Connects to `address` as CheckAddress takes it, a list's servers one after the other, and greets
// as a client of `tls` would. OK where a server answers, and where the network says why not itself
// (refused, no such host): the failed call has said so. Otherwise
// INVALID_ARGUMENT "TLS_INVALID": one side speaks TLS and the other does not, one does not take the
// other's certificate, or files cannot be used; the message names the flag.
// UNAVAILABLE: the connection of a single server is taken, and nothing comes within `patience`.
absl::Status CheckConnection(const std::string& address, const TlsOptions& tls,
                             absl::Duration patience);

}  // namespace lwq
