// server info|drain.
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

template <typename Items>
std::string Names(const Items& items) {
  std::vector<std::string> names;
  for (const v1::Capability& item : items) names.push_back(LogSafe(item.name()));
  return absl::StrJoin(names, ", ");
}

absl::StatusOr<int> Info(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::ServerInfo info, session->client()->GetServerInfo());
  if (invocation.flags.Has("json")) return PrintJson(invocation, info);
  Table table({"", ""});
  table.AddRow({"version", LogSafe(info.version())});
  table.AddRow({"process", absl::StrCat(info.server_pid())});
  table.AddRow({"up for", AgeText(info.start_time())});
  table.AddRow({"data", LogSafe(info.data_directory())});
  table.AddRow({"store", LogSafe(info.store())});
  table.AddRow({"blobs", absl::StrCat(FormatBytes(info.blob_bytes()), " in ",
                                      FormatCount(info.blob_count()))});
  table.AddRow({"workers", absl::StrCat(info.live_workers())});
  table.AddRow({"methods", Names(info.quantizers())});
  table.AddRow({"scorers", Names(info.scorers())});
  table.AddRow({"allocators", LogSafe(absl::StrJoin(info.allocators(), ", "))});
  table.AddRow({"profiles", LogSafe(absl::StrJoin(info.profiles(), ", "))});
  table.AddRow({"families", LogSafe(absl::StrJoin(info.families(), ", "))});
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Drain(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_RETURN_IF_ERROR(session->client()->DrainServer());
  *invocation.out << (invocation.flags.Has("json") ? "{\"draining\": true}\n" : "draining\n");
  return kExitOk;
}

constexpr std::array<Subcommand, 2> kSubcommands = {{
    {"drain", 0, 0, Drain},
    {"info", 0, 0, Info},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

}  // namespace

extern const CommandDef kServerCommand;
constinit const CommandDef kServerCommand = {
    .name = "server",
    .arguments = "info | drain",
    .summary = "Tells about the server, or stops it the orderly way.",
    .examples = "  lwqctl server info\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
