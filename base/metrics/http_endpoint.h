// The HTTP port of the operators: /metrics, /livez, /readyz. Nothing else is served.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct mg_context;
struct mg_connection;

namespace lwq {

class HttpEndpoint {
 public:
  struct Handlers {
    std::function<std::string()> metrics;
    std::function<bool()> ready;
  };
  // `address`: host:port; port 0 takes a free one. UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Start(const std::string& address,
                                                             Handlers handlers);
  ~HttpEndpoint();
  // host:port with the port that is listened on.
  const std::string& address() const { return address_; }

 private:
  explicit HttpEndpoint(Handlers handlers) : handlers_(std::move(handlers)) {}
  static int Serve(mg_connection* connection);

  const Handlers handlers_;
  std::string address_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace lwq
