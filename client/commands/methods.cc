// methods: what can quantize, score and allocate, and the options that each declares.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/option.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/table.h"
#include "records/option_records.h"

namespace lwq::client {
namespace {

void AddRows(const char* kind, const google::protobuf::RepeatedPtrField<v1::Capability>& all,
             Table& table) {
  for (const v1::Capability& one : all) {
    table.AddRow({kind, LogSafe(one.name()), LogSafe(one.help())});
    for (const OptionDef& option : OptionsOf(one.options())) {
      table.AddRow({"", absl::StrCat("  ", LogSafe(option.name), "=", LogSafe(option.default_value)),
                    LogSafe(absl::StrCat(option.help, ": ", OptionRange(option)))});
    }
  }
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenEmbedded(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::ServerInfo info, session->client()->GetServerInfo());
  session->Close();
  if (invocation.flags.Has("json")) {
    v1::ServerInfo only;
    *only.mutable_quantizers() = info.quantizers();
    *only.mutable_scorers() = info.scorers();
    *only.mutable_allocator_details() = info.allocator_details();
    return PrintJson(invocation, only);
  }
  Table table({"FOR", "NAME", "WHAT IT DOES"});
  AddRows("--method", info.quantizers(), table);
  AddRows("--scorer", info.scorers(), table);
  AddRows("--allocator", info.allocator_details(), table);
  *invocation.out << table.Text();
  return kExitOk;
}

}  // namespace

extern const CommandDef kMethodsCommand;
constinit const CommandDef kMethodsCommand = {
    .name = "methods",
    .arguments = "",
    .summary = "Lists methods, scorers and allocators with their options.",
    .examples = "  lwqctl methods\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
