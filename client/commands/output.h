// What the service commands share: resource names, JSON, times.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/log.h"
#include "client/client.h"
#include "client/commands/command.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// "j-1" and "jobs/j-1" both as "jobs/j-1".
std::string FullName(absl::string_view collection, const std::string& name);
// "jobs/j-1" as "j-1".
std::string ShortName(const std::string& name);

// Whether -o wide asks for more columns.
bool IsWide(const Invocation& invocation);

// Prints the message as JSON.
absl::StatusOr<int> PrintJson(const Invocation& invocation,
                              const google::protobuf::Message& message);

// All pages of a job's tasks.
absl::StatusOr<v1::ListTasksResponse> AllTasks(Client* client, const std::string& job);

// "12s ago"; "-" when unset.
std::string AgeText(const google::protobuf::Timestamp& time);

// What datasets are called by people, by name; empty where the server does not say.
std::map<std::string, std::string> DatasetNames(Client* client);

// A job in full, for `show`, and the code that a finished one gives: 0, or 1 when it did not
// succeed.
std::string JobText(const v1::Job& job, const std::map<std::string, std::string>& datasets);
int JobExitCode(const v1::Job& job);

// Runs subcommand `arguments[0]` of a command such as "model add"; USAGE with the choices
// otherwise.
struct Subcommand {
  const char* name;
  int fewest_arguments;  // after the subcommand's name
  int most_arguments;
  absl::StatusOr<int> (*run)(Invocation& invocation);
};
absl::StatusOr<int> RunSubcommand(absl::Span<const Subcommand> subcommands, Invocation& invocation);

// Whose resources a list has: the caller's tenant's, or what an operator asks for.
inline constexpr FlagDef kAllTenantsFlag = {"all-tenants", "", "of all tenants; for operators"};
inline constexpr FlagDef kTenantFlag = {"tenant", "TENANT",
                                        "of this tenant instead of one's own; for operators"};
template <typename Resource>
std::string TenantText(const Resource& resource) {
  return resource.tenant().empty() ? "default" : LogSafe(resource.tenant());
}
template <typename Request>
void SetTenants(const Flags& flags, Request& request) {
  request.set_tenant(flags.Get("tenant"));
  request.set_all_tenants(flags.Has("all-tenants"));
}

}  // namespace lwq::client
