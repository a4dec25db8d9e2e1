// What a caller sees of the resources there are: its own tenant's, and what the server provides.
// Another's answers as what is not there does, in the same words. Operators see all.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "server/service/guard.h"
#include "server/service/scheduler.h"

namespace lwq {

bool MaySee(const Caller& caller, const std::string& tenant);

// NOT_FOUND; NAME_INVALID for what is no name of one.
absl::StatusOr<v1::JobRecord> SeenJob(const Scheduler& scheduler, const Caller& caller,
                                      const std::string& name);
absl::Status CheckJobSeen(const Scheduler& scheduler, const Caller& caller,
                          const std::string& name);
absl::StatusOr<v1::Model> SeenModel(const Scheduler& scheduler, const Caller& caller,
                                    const std::string& name);
absl::StatusOr<v1::Dataset> SeenDataset(const Scheduler& scheduler, const Caller& caller,
                                        const std::string& name);
absl::StatusOr<v1::Artifact> SeenArtifact(const Scheduler& scheduler, const Caller& caller,
                                          const std::string& name);

// A job uses models and datasets of its own tenant, and those of the server. NOT_FOUND for others,
// whoever submits it.
absl::Status CheckUsable(const Scheduler& scheduler, const std::string& tenant,
                         const v1::JobSpec& spec);

// Whose resources a list is to have; empty: everybody's. `of_tenant` and `all` are as the request
// has them. NOT_FOUND for a tenant that the caller does not see, PERMISSION_DENIED "ROLE_REQUIRED"
// for all.
absl::StatusOr<std::vector<std::string>> TenantsToList(const Caller& caller,
                                                       const std::string& of_tenant, bool all);

}  // namespace lwq
