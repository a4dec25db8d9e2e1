#include "base/metrics/http_endpoint.h"

#include <civetweb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"

namespace lwq {
namespace {

// `code`, which tells the library that the request is dealt with.
int Answer(mg_connection* connection, int code, const char* phrase, const std::string& body) {
  const std::string text = absl::StrCat(
      "HTTP/1.1 ", code, " ", phrase,
      "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: ", body.size(),
      "\r\nConnection: close\r\n\r\n", body);
  mg_write(connection, text.data(), text.size());
  return code;
}

// The library leaves open what it had accepted, and none of its threads had begun to read, when it
// was stopped: whoever asked would wait for as long as it can.
void CloseAccepted(int port) {
  const auto all = ListDirectory("/proc/self/fd");
  if (!all.ok()) return;
  for (const std::string& name : *all) {
    int fd = -1;
    sockaddr_in6 own = {}, peer = {};  // the port of IPv4 lies where that of IPv6 does
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    if (absl::SimpleAtoi(name, &fd) &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
        (own.sin6_family == AF_INET || own.sin6_family == AF_INET6) &&
        ntohs(own.sin6_port) == port &&
        ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0) {
      ::close(fd);
    }
  }
}

}  // namespace

int HttpEndpoint::Serve(mg_connection* connection) {
  const auto* self = static_cast<HttpEndpoint*>(mg_get_user_data(mg_get_context(connection)));
  const Handlers& handlers = self->handlers_;
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string path = request->local_uri == nullptr ? "" : request->local_uri;
  if (path == "/metrics") return Answer(connection, 200, "OK", handlers.metrics());
  if (path == "/livez") return Answer(connection, 200, "OK", "ok\n");
  if (path != "/readyz") return Answer(connection, 404, "Not Found", "/metrics /livez /readyz\n");
  return handlers.ready() ? Answer(connection, 200, "OK", "ok\n")
                          : Answer(connection, 503, "Service Unavailable", "not ready\n");
}

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Start(const std::string& address,
                                                                  Handlers handlers) {
  auto endpoint = std::unique_ptr<HttpEndpoint>(new HttpEndpoint(std::move(handlers)));
  // A request that comes drop by drop has a thread until its time is over: probes are to find one
  // that is free, or to wait for no longer than they may.
  const char* options[] = {"listening_ports",    address.c_str(), "num_threads", "64",
                           "request_timeout_ms", "1000",          nullptr};
  // Not a handler that is set afterwards: a request that came before it would be looked for among
  // files, for which the library's threads of 100 KiB have too little stack.
  mg_callbacks callbacks = {};
  callbacks.begin_request = &HttpEndpoint::Serve;
  endpoint->context_ = mg_start(&callbacks, endpoint.get(), options);
  if (endpoint->context_ == nullptr) {
    return Failure(reasons::kAddressInUse,
                   absl::StrCat("listening for metrics on ", address,
                                ": the address is taken or cannot be used"));
  }
  mg_server_port port = {};
  mg_get_server_ports(endpoint->context_, 1, &port);
  const size_t colon = address.rfind(':');
  const std::string host = colon == std::string::npos ? "0.0.0.0" : address.substr(0, colon);
  endpoint->address_ = absl::StrCat(host, ":", port.port);
  endpoint->port_ = port.port;
  return endpoint;
}

HttpEndpoint::~HttpEndpoint() {
  if (context_ == nullptr) return;
  mg_stop(context_);
  CloseAccepted(port_);
}

}  // namespace lwq
