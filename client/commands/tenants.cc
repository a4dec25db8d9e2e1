// tenants: whose work there is, what each may have and has.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

// "3 of 8"; "3" where there is no limit.
std::string OfText(const std::string& has, const std::string& most) {
  return most.empty() ? has : absl::StrCat(has, " of ", most);
}
std::string CountText(int has, int most) {
  return OfText(absl::StrCat(has), most > 0 ? absl::StrCat(most) : "");
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::ListTenantsResponse all, session->client()->ListTenants());
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", ">WEIGHT", ">RUNNING", ">QUEUED", ">STORED", ">WORKER HOURS"});
  for (const v1::Tenant& tenant : all.tenants()) {
    table.AddRow({LogSafe(tenant.name()), absl::StrFormat("%g", tenant.weight()),
                  CountText(tenant.running_jobs(), tenant.max_running_jobs()),
                  CountText(tenant.queued_jobs(), tenant.max_queued_jobs()),
                  OfText(FormatBytes(tenant.bytes()),
                         tenant.max_bytes() > 0 ? FormatBytes(tenant.max_bytes()) : ""),
                  absl::StrFormat("%.2f", tenant.worker_seconds() / 3600)});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

}  // namespace

extern const CommandDef kTenantsCommand;
constinit const CommandDef kTenantsCommand = {
    .name = "tenants",
    .arguments = "",
    .summary = "Lists tenants: shares, quotas and what each has; for operators.",
    .examples = "  lwqctl tenants\nWORKER HOURS are those since the leading server started.\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
