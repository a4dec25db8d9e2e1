// context: servers by name.
#include <array>
#include <filesystem>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/rpc/token.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/contexts.h"
#include "client/errors.h"
#include "client/file_lock.h"
#include "client/session.h"
#include "client/table.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

// The own server of --data-dir, which needs no entry.
constexpr char kLocal[] = "local";

constexpr std::array<FlagDef, 1> kFlags = {
    {{"force", "", "add: replace the context that has this name"}}};

// Changes the file while no other command does.
absl::Status Change(const std::function<absl::Status(Contexts&)>& change) {
  const std::string path = ContextsPath();
  LWQ_ASSIGN_OR_RETURN(Contexts contexts, ReadContexts(path));
  LWQ_RETURN_IF_ERROR(WriteContexts(path, contexts));  // the folder is there from here on
  LWQ_ASSIGN_OR_RETURN(
      const auto lock,
      FileLock::Acquire(absl::StrCat(path, ".lock"), FileLock::Mode::kExclusive, absl::Seconds(5)));
  LWQ_ASSIGN_OR_RETURN(contexts, ReadContexts(path));
  LWQ_RETURN_IF_ERROR(change(contexts));
  return WriteContexts(path, contexts);
}

// Files are found from any folder.
std::string Absolute(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

absl::StatusOr<int> AddContext(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  const std::string& name = invocation.arguments[1];
  if (name == kLocal || name.empty() || LogSafe(name) != name) {
    return Failure(reasons::kNameInvalid,
                   "a context needs a name other than \"local\", which is "
                   "the own server");
  }
  if (flags.Get("server").empty()) {
    return Failure(reasons::kUsage, "--server is missing: the address that the context is for");
  }
  LWQ_RETURN_IF_ERROR(CheckAddress(flags.Get("server")));
  const Context context{.server = flags.Get("server"),
                        .tls = {.ca_file = Absolute(flags.Get("tls-ca")),
                                .cert_file = Absolute(flags.Get("tls-cert")),
                                .key_file = Absolute(flags.Get("tls-key"))},
                        .token_file = Absolute(flags.Get("token-file"))};
  // Files that are not there are better found now than at the first call.
  LWQ_ASSIGN_OR_RETURN(auto credentials, ClientCredentials(context.tls));
  LWQ_RETURN_IF_ERROR(
      WithToken(std::move(credentials), context.token_file, context.server).status());
  LWQ_RETURN_IF_ERROR(Change([&](Contexts& contexts) -> absl::Status {
    const auto there = contexts.all.find(name);
    if (there != contexts.all.end() && !flags.Has("force")) {
      return Failure(reasons::kAlreadyExists,
                     absl::StrCat("there is a context ", LogSafe(name), " already, of ",
                                  LogSafe(there->second.server)));
    }
    contexts.all[name] = context;
    return absl::OkStatus();
  }));
  *invocation.out << name << "\n";
  return kExitOk;
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
  if (invocation.flags.Has("json")) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const auto& [name, context] : contexts.all) {
      all.push_back({{"name", name},
                     {"server", context.server},
                     {"tls", !context.tls.ca_file.empty()},
                     {"current", name == contexts.current}});
    }
    *invocation.out << all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    return kExitOk;
  }
  Table table({"", "NAME", "SERVER", "TLS"});
  table.AddRow({contexts.current.empty() ? "*" : "", kLocal, "the own one, of --data-dir", "-"});
  for (const auto& [name, context] : contexts.all) {
    table.AddRow({name == contexts.current ? "*" : "", LogSafe(name), LogSafe(context.server),
                  context.tls.cert_file.empty() ? (context.tls.ca_file.empty() ? "-" : "server")
                                                : "mutual"});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Use(Invocation& invocation) {
  const std::string& name = invocation.arguments[1];
  LWQ_RETURN_IF_ERROR(Change([&](Contexts& contexts) -> absl::Status {
    if (name != kLocal) LWQ_RETURN_IF_ERROR(contexts.Find(name).status());
    contexts.current = name == kLocal ? "" : name;
    return absl::OkStatus();
  }));
  *invocation.out << name << "\n";
  return kExitOk;
}

absl::StatusOr<int> Remove(Invocation& invocation) {
  const std::string& name = invocation.arguments[1];
  LWQ_RETURN_IF_ERROR(Change([&](Contexts& contexts) -> absl::Status {
    LWQ_RETURN_IF_ERROR(contexts.Find(name).status());
    contexts.all.erase(name);
    if (contexts.current == name) contexts.current.clear();
    return absl::OkStatus();
  }));
  *invocation.out << name << " removed\n";
  return kExitOk;
}

absl::StatusOr<int> Show(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
  const std::string name =
      invocation.arguments.size() > 1 ? invocation.arguments[1] : contexts.current;
  Table table({"", ""});
  table.AddRow({"name", name.empty() ? kLocal : LogSafe(name)});
  if (!name.empty() && name != kLocal) {
    LWQ_ASSIGN_OR_RETURN(const Context context, contexts.Find(name));
    table.AddRow({"server", LogSafe(context.server)});
    table.AddRow({"tls-ca", LogSafe(context.tls.ca_file)});
    table.AddRow({"tls-cert", LogSafe(context.tls.cert_file)});
    table.AddRow({"tls-key", LogSafe(context.tls.key_file)});
    table.AddRow({"token-file", LogSafe(context.token_file)});
  }
  LWQ_ASSIGN_OR_RETURN(const Connection in_force, ResolveConnection(invocation.flags));
  table.AddRow({"in force", in_force.server.empty() ? "the own server" : LogSafe(in_force.server)});
  table.AddRow({"by", in_force.origin});
  *invocation.out << table.Text();
  return kExitOk;
}

constexpr std::array<Subcommand, 5> kSubcommands = {{
    {"add", 1, 1, AddContext},
    {"list", 0, 0, List},
    {"remove", 1, 1, Remove},
    {"show", 0, 1, Show},
    {"use", 1, 1, Use},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr std::array<Advice, 1> kAdvice = {
    {{"ALREADY_EXISTS", "give another name, or --force, which replaces all of it"}}};

}  // namespace

extern const CommandDef kContextCommand;
constinit const CommandDef kContextCommand = {
    .name = "context",
    .arguments =
        "add NAME --server ADDRESS [--force] | list | remove NAME | show [NAME] | use NAME|local",
    .summary =
        "Keeps servers by name, with their certificates and tokens; one is used where none is "
        "named.",
    .examples =
        "  lwqctl context add prod --server lwq.example:7443 --tls-ca ca.pem --tls-cert me.pem "
        "--tls-key me.key\n"
        "  lwqctl context use prod\n  lwqctl jobs --context prod\n"
        "A server is found by --server, else --context, $LWQ_SERVER, $LWQ_CONTEXT, the context in\n"
        "use, and else it is the own one.\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 2,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
