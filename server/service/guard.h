// Who may call what: one check at the head of every call. A role comes with the caller's
// certificate, as a URI among its names: spiffe://lwq/ROLE/NAME, where ROLE is client, operator,
// admin or worker. A method without a line in guard.cc is nobody's.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/grpcpp.h"

namespace lwq {

// Each may do what those before it may, but for workers, who do tasks and nothing else.
enum Role : unsigned {
  kNobody = 0,
  kClient = 1,    // jobs, models, datasets, artifacts
  kOperator = 2,  // workers and collection besides
  kAdmin = 4,     // stops the server besides
  kWorker = 8,
};

class Guard {
 public:
  // Not enforced on a server that lets in whoever reaches it: on a Unix socket or the loopback.
  explicit Guard(bool enforced) : enforced_(enforced) {}

  bool enforced() const { return enforced_; }
  // PERMISSION_DENIED "ROLE_REQUIRED".
  absl::Status Check(const grpc::ServerContextBase& context, absl::string_view service,
                     absl::string_view method) const;

 private:
  const bool enforced_;
};

// The roles that may call a method, as bits; kNobody for one that is not known.
unsigned RolesFor(absl::string_view service, absl::string_view method);
// The role of a URI of a certificate; kNobody for any other URI.
Role RoleOfUri(absl::string_view uri);

}  // namespace lwq
