#include "server/service/guard.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "grpc/grpc_security_constants.h"

namespace lwq {
namespace {

constexpr unsigned kAdmins = kAdmin;
constexpr unsigned kOperators = kOperator | kAdmins;
constexpr unsigned kClients = kClient | kOperators;
constexpr unsigned kEverybody = kClients | kWorker;

struct Permission {
  absl::string_view service, method;
  unsigned roles;
};

constexpr Permission kPermissions[] = {
    {"AdminService", "GetServerInfo", kEverybody},
    {"AdminService", "ListWorkers", kClients},
    {"AdminService", "CordonWorker", kOperators},
    {"AdminService", "CollectGarbage", kOperators},
    {"AdminService", "DrainServer", kAdmins},
    {"ArtifactService", "GetArtifact", kClients},
    {"ArtifactService", "ListArtifacts", kClients},
    {"ArtifactService", "ReadArtifact", kClients},
    {"ArtifactService", "DeleteArtifact", kClients},
    {"BlobService", "FindMissingBlobs", kEverybody},
    {"BlobService", "WriteBlob", kEverybody},
    {"BlobService", "QueryWriteStatus", kEverybody},
    {"BlobService", "ReadBlob", kEverybody},
    {"DatasetService", "CreateDataset", kClients},
    {"DatasetService", "GetDataset", kClients},
    {"DatasetService", "ListDatasets", kClients},
    {"DatasetService", "DeleteDataset", kClients},
    {"JobService", "CreateJob", kClients},
    {"JobService", "GetJob", kClients},
    {"JobService", "ListJobs", kClients},
    {"JobService", "UpdateJob", kClients},
    {"JobService", "CancelJob", kClients},
    {"JobService", "RetryJob", kClients},
    {"JobService", "DeleteJob", kClients},
    {"JobService", "WatchJob", kClients},
    {"JobService", "PlanJob", kClients},
    {"JobService", "ListTasks", kClients},
    {"ModelService", "CreateModel", kClients},
    {"ModelService", "GetModel", kClients},
    {"ModelService", "ListModels", kClients},
    {"ModelService", "DeleteModel", kClients},
    {"WorkerService", "RegisterWorker", kWorker},
    {"WorkerService", "LeaseTasks", kWorker},
    {"WorkerService", "Heartbeat", kWorker},
    {"WorkerService", "CompleteTask", kWorker},
    {"WorkerService", "FailTask", kWorker},
    {"WorkerService", "ReleaseTasks", kWorker},
};

}  // namespace

unsigned RolesFor(absl::string_view service, absl::string_view method) {
  for (const Permission& permission : kPermissions) {
    if (permission.service == service && permission.method == method) return permission.roles;
  }
  return kNobody;
}

Role RoleOfUri(absl::string_view uri) {
  if (!absl::ConsumePrefix(&uri, "spiffe://lwq/")) return kNobody;
  const size_t slash = uri.find('/');
  if (slash == absl::string_view::npos || slash + 1 == uri.size()) return kNobody;
  const absl::string_view role = uri.substr(0, slash);
  if (role == "client") return kClient;
  if (role == "operator") return kOperator;
  if (role == "admin") return kAdmin;
  if (role == "worker") return kWorker;
  return kNobody;
}

absl::Status Guard::Check(const grpc::ServerContextBase& context, absl::string_view service,
                          absl::string_view method) const {
  if (!enforced_) return absl::OkStatus();
  const auto identity = context.auth_context();
  if (identity != nullptr && identity->IsPeerAuthenticated()) {
    for (const grpc::string_ref& uri : identity->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
      const Role role = RoleOfUri(absl::string_view(uri.data(), uri.size()));
      if ((RolesFor(service, method) & role) != 0) return absl::OkStatus();
    }
  }
  return Failure(reasons::kRoleRequired, absl::StrCat(service, ".", method,
                                                      ": the caller's certificate names no role "
                                                      "(spiffe://lwq/ROLE/NAME) that may call it"));
}

}  // namespace lwq
