#include "server/service/guard.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "grpc/grpc_security_constants.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr absl::string_view kTenantUri = "spiffe://lwq/tenant/";

constexpr unsigned kAdmins = kAdmin;
constexpr unsigned kOperators = kOperator | kAdmins;
constexpr unsigned kClients = kClient | kOperators;
constexpr unsigned kEverybody = kClients | kWorker;

struct Permission {
  absl::string_view service, method;
  unsigned roles;
  bool changes = false;  // something; not what workers do with their tasks
};

constexpr bool kChanges = true;
constexpr Permission kPermissions[] = {
    {"AdminService", "GetServerInfo", kEverybody},
    {"AdminService", "ListWorkers", kClients},
    {"AdminService", "ListTenants", kOperators},
    {"AdminService", "CordonWorker", kOperators, kChanges},
    {"AdminService", "CollectGarbage", kOperators, kChanges},
    {"AdminService", "DrainServer", kAdmins, kChanges},
    {"ArtifactService", "GetArtifact", kClients},
    {"ArtifactService", "ListArtifacts", kClients},
    {"ArtifactService", "ReadArtifact", kClients},
    {"ArtifactService", "DeleteArtifact", kClients, kChanges},
    {"BlobService", "FindMissingBlobs", kEverybody},
    {"BlobService", "WriteBlob", kEverybody, kChanges},
    {"BlobService", "QueryWriteStatus", kEverybody},
    {"BlobService", "ReadBlob", kEverybody},
    {"DatasetService", "CreateDataset", kClients, kChanges},
    {"DatasetService", "GetDataset", kClients},
    {"DatasetService", "ListDatasets", kClients},
    {"DatasetService", "DeleteDataset", kClients, kChanges},
    {"JobService", "CreateJob", kClients, kChanges},
    {"JobService", "GetJob", kClients},
    {"JobService", "ListJobs", kClients},
    {"JobService", "UpdateJob", kClients, kChanges},
    {"JobService", "CancelJob", kClients, kChanges},
    {"JobService", "RetryJob", kClients, kChanges},
    {"JobService", "DeleteJob", kClients, kChanges},
    {"JobService", "WatchJob", kClients},
    {"JobService", "PlanJob", kClients},
    {"JobService", "ListTasks", kClients},
    {"ModelService", "CreateModel", kClients, kChanges},
    {"ModelService", "GetModel", kClients},
    {"ModelService", "ListModels", kClients},
    {"ModelService", "DeleteModel", kClients, kChanges},
    {"TokenService", "CreateToken", kAdmins, kChanges},
    {"TokenService", "ListTokens", kAdmins},
    {"TokenService", "RevokeToken", kAdmins, kChanges},
    {"WorkerService", "RegisterWorker", kWorker, kChanges},
    {"WorkerService", "LeaseTasks", kWorker},
    {"WorkerService", "Heartbeat", kWorker},
    {"WorkerService", "CompleteTask", kWorker},
    {"WorkerService", "FailTask", kWorker},
    {"WorkerService", "ReleaseTasks", kWorker},
};

const Permission* Find(absl::string_view service, absl::string_view method) {
  for (const Permission& permission : kPermissions) {
    if (permission.service == service && permission.method == method) return &permission;
  }
  return nullptr;
}

constexpr std::pair<Role, absl::string_view> kRoleNames[] = {
    {kClient, "client"}, {kOperator, "operator"}, {kAdmin, "admin"}, {kWorker, "worker"}};

std::string NamesOf(unsigned roles) {
  std::string names;
  for (const auto& [role, name] : kRoleNames) {
    if ((roles & role) != 0) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return names;
}

Role RoleOf(v1::Token::Role role) {
  switch (role) {
    case v1::Token::CLIENT:
      return kClient;
    case v1::Token::OPERATOR:
      return kOperator;
    case v1::Token::ADMIN:
      return kAdmin;
    case v1::Token::WORKER:
      return kWorker;
    default:
      return kNobody;
  }
}

// What a caller shows as "authorization"; empty when it shows nothing.
absl::string_view AuthorizationOf(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return "";
  return {found->second.data(), found->second.size()};
}

}  // namespace

absl::string_view NameOf(Role role) {
  for (const auto& [known, name] : kRoleNames) {
    if (known == role) return name;
  }
  return "";
}

unsigned RolesFor(absl::string_view service, absl::string_view method) {
  const Permission* permission = Find(service, method);
  return permission == nullptr ? kNobody : permission->roles;
}

bool IsAudited(absl::string_view service, absl::string_view method, Role role) {
  const Permission* permission = Find(service, method);
  // The blobs that workers write are named by their tasks' results.
  if (service == "BlobService" && role == kWorker) return false;
  return permission != nullptr && permission->changes;
}

Role RoleOfUri(absl::string_view uri) {
  if (!absl::ConsumePrefix(&uri, "spiffe://lwq/")) return kNobody;
  const size_t slash = uri.find('/');
  if (slash == absl::string_view::npos || slash + 1 == uri.size()) return kNobody;
  for (const auto& [role, name] : kRoleNames) {
    if (uri.substr(0, slash) == name) return role;
  }
  return kNobody;
}

bool MayBeWorker(absl::string_view pattern, absl::string_view worker_id) {
  if (pattern.empty()) return true;
  if (absl::ConsumeSuffix(&pattern, "*")) return absl::StartsWith(worker_id, pattern);
  return worker_id == pattern;
}

absl::StatusOr<std::string> TenantOfUris(absl::Span<const std::string> uris) {
  std::string tenant;
  for (const absl::string_view uri : uris) {
    if (!absl::StartsWith(uri, kTenantUri)) continue;
    const absl::string_view name = uri.substr(kTenantUri.size());
    // Whoever made the certificate meant some tenant: not the default one.
    if (!IsResourceId(name)) {
      return Failure(reasons::kRoleRequired,
                     absl::StrCat("the caller's certificate names the tenant \"", LogSafe(uri),
                                  "\", which is no lower-case id"));
    }
    if (!tenant.empty()) {
      return Failure(reasons::kRoleRequired,
                     "the caller's certificate names several tenants; it may name one");
    }
    tenant = std::string(name);
  }
  return tenant;
}

absl::Status Guard::Identify(const grpc::ServerContextBase& context, unsigned roles,
                             Caller* caller) const {
  absl::string_view shown = AuthorizationOf(context);
  if (tokens_ != nullptr && !shown.empty()) {
    constexpr absl::string_view kScheme = "Bearer ";
    if (!absl::StartsWithIgnoreCase(shown, kScheme)) {
      return Failure(reasons::kTokenInvalid, "authorization is not \"Bearer\" and a token");
    }
    shown.remove_prefix(kScheme.size());
    LWQ_ASSIGN_OR_RETURN(caller->token, tokens_->Find(absl::StripAsciiWhitespace(shown)));
    const v1::Token& token = caller->token->token();
    caller->name = token.name();
    caller->principal = token.principal();
    caller->role = RoleOf(token.role());
    caller->tenant = TenantOf(token);
    caller->worker = token.worker();
    return absl::OkStatus();
  }
  const auto identity = context.auth_context();
  if (identity == nullptr || !identity->IsPeerAuthenticated()) {
    return Failure(reasons::kTokenMissing, "the caller shows neither a token nor a certificate");
  }
  std::vector<std::string> names;
  for (const grpc::string_ref& uri : identity->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    names.emplace_back(uri.data(), uri.size());
  }
  LWQ_ASSIGN_OR_RETURN(const std::string tenant, TenantOfUris(names));
  if (!tenant.empty()) caller->tenant = tenant;
  // Of several roles the first one that may.
  for (const std::string& name : names) {
    const Role role = RoleOfUri(name);
    if (role == kNobody || (caller->known() && (roles & role) == 0)) continue;
    caller->name = name;
    caller->role = role;
    if ((roles & role) != 0) break;
  }
  return absl::OkStatus();
}

absl::Status Guard::Admit(const grpc::ServerContextBase& context, absl::string_view service,
                          absl::string_view method, Caller* caller) const {
  const unsigned roles = RolesFor(service, method);
  if (!enforced_) {
    *caller = Caller{.name = "local", .role = kAdmin, .anonymous = true};
    return absl::OkStatus();
  }
  LWQ_RETURN_IF_ERROR(Identify(context, roles, caller));
  if ((roles & caller->role) != 0) return absl::OkStatus();
  if (!caller->known()) {
    return Failure(reasons::kRoleRequired,
                   absl::StrCat(service, ".", method,
                                ": the caller's certificate names no role "
                                "(spiffe://lwq/ROLE/NAME) that may call it"));
  }
  return Failure(reasons::kRoleRequired,
                 absl::StrCat(service, ".", method, ": the caller has the role ",
                              NameOf(caller->role), "; it takes one of ", NamesOf(roles)));
}

absl::Status Guard::MayStay(const Caller& caller) const {
  return caller.token == nullptr ? absl::OkStatus() : caller.token->IsGood(clock_->Now());
}

}  // namespace lwq
