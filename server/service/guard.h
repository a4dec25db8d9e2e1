// Who may call what: one check at the head of every call. A caller shows a token
// (token_registry.h), or a certificate with a role as a URI among its names:
// spiffe://lwq/ROLE/NAME, where ROLE is client, operator, admin or worker. A method without a line
// in guard.cc is nobody's. A token names its tenant; a certificate does by one more URI,
// spiffe://lwq/tenant/NAME.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "grpcpp/grpcpp.h"
#include "server/service/token_registry.h"
#include "server/store/tenant.h"

namespace lwq {

// Each may do what those before it may, but for workers, who do tasks and nothing else.
enum Role : unsigned {
  kNobody = 0,
  kClient = 1,    // jobs, models, datasets, artifacts
  kOperator = 2,  // workers and collection besides
  kAdmin = 4,     // tokens, and stopping the server, besides
  kWorker = 8,
};
absl::string_view NameOf(Role role);

// Who makes a call. Empty while nobody knows.
struct Caller {
  std::string name;       // "tokens/t1", "spiffe://lwq/client/anna"; "local" where nobody is asked
  std::string principal;  // of a token: who has it
  Role role = kNobody;
  std::shared_ptr<const LiveToken> token;  // null: none was shown
  std::string tenant = kDefaultTenant;     // whose is what it makes
  std::string worker;                      // of a worker: Token.worker
  bool anonymous = false;                  // nobody is asked: a worker may be called so, too

  bool known() const { return role != kNobody; }
  // Operators see every tenant's; workers are given what their tasks read.
  bool sees_all() const { return role != kClient && known(); }
};
// Whether a caller of this Token.worker may be the worker of that id.
bool MayBeWorker(absl::string_view pattern, absl::string_view worker_id);

// Thread-safe.
class Guard {
 public:
  // Not enforced on a server that lets in whoever reaches it: on a Unix socket or the loopback.
  // `tokens`: null where none are taken; it and `clock` outlive this.
  Guard(bool enforced, const TokenRegistry* tokens, Clock* clock)
      : enforced_(enforced), tokens_(tokens), clock_(clock) {}

  virtual ~Guard() = default;

  bool enforced() const { return enforced_; }
  // UNAUTHENTICATED for a caller that is not known: "TOKEN_MISSING", and those of
  // TokenRegistry::Find. PERMISSION_DENIED "ROLE_REQUIRED" for one that may not. A token goes
  // before a certificate: one that is no good is not made up for by the other. `caller` is set when
  // it is known, whether it may or not.
  virtual absl::Status Admit(const grpc::ServerContextBase& context, absl::string_view service,
                             absl::string_view method, Caller* caller) const;
  // Whether who was let in may stay: its token may have been revoked since, or have expired.
  absl::Status MayStay(const Caller& caller) const;

 private:
  absl::Status Identify(const grpc::ServerContextBase& context, unsigned roles,
                        Caller* caller) const;

  const bool enforced_;
  const TokenRegistry* const tokens_;
  Clock* const clock_;
};

// The roles that may call a method, as bits; kNobody for one that is not known.
unsigned RolesFor(absl::string_view service, absl::string_view method);
// Whether a call of the method by that role is written into the audit log: those that change
// something. What workers do with their tasks is told by the jobs' events.
bool IsAudited(absl::string_view service, absl::string_view method, Role role);
// The role of a URI of a certificate; kNobody for any other URI.
Role RoleOfUri(absl::string_view uri);
// The tenant that a certificate's URIs name; "" where none does. PERMISSION_DENIED "ROLE_REQUIRED"
// where they name several, or what can be no tenant.
absl::StatusOr<std::string> TenantOfUris(absl::Span<const std::string> uris);

}  // namespace lwq
