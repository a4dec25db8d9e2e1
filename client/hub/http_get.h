// GET over HTTP, into memory or a file that goes on where it was. The one place of lwqctl that sees
// libcurl.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lwq::client {

struct HttpGet {
  std::string url;
  std::string bearer;  // token for the first host alone; it is not sent on where that redirects
  // Asked several times a second; an error ends the transfer with it.
  std::function<absl::Status()> may_go_on;
};

// The body of an answer of at most `max_bytes`. Errors: HUB_DENIED (401, 403), HUB_NOT_FOUND (404),
// HUB_UNAVAILABLE (no connection, silence, 429, 5xx), HUB_INVALID (anything else, or too much).
absl::StatusOr<std::string> GetText(const HttpGet& get, int64_t max_bytes);

// Appends to the file, from its end on, until it has `size_bytes`; a server that sends all of it
// anew is taken from the beginning. More than that is HUB_INVALID; less HUB_UNAVAILABLE, and the
// file keeps what came. `progress` hears of the file's size.
absl::Status GetFile(const HttpGet& get, const std::string& path, int64_t size_bytes,
                     const std::function<void(int64_t)>& progress);

}  // namespace lwq::client
