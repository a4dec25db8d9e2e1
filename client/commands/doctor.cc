// doctor: what is wrong with this machine, the server and a model.
#include "client/doctor.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/embedded.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

void Append(std::vector<Finding> more, std::vector<Finding>& findings) {
  for (Finding& finding : more) findings.push_back(std::move(finding));
}

// The named server, or the own one where it runs.
std::vector<Finding> LookAtServer(const Flags& flags, const std::string& data) {
  const absl::StatusOr<EmbeddedPaths> paths = EmbeddedPaths::Of(data);
  const absl::StatusOr<Connection> connection = ResolveConnection(flags);
  if (!connection.ok()) return {UnreachableServer("context", connection.status())};
  const std::string& named = connection->server;
  if (named.empty() && paths.ok() && !IsEmbeddedRunning(*paths)) {
    return {{"server", "reachable", Finding::State::kOk,
             "none is named and none runs: quantize, eval and plan start their own", ""}};
  }
  const std::string address = named.empty() && paths.ok() ? paths->address : named;
  const absl::StatusOr<std::unique_ptr<Session>> session = Session::OpenService(flags);
  if (!session.ok()) return {UnreachableServer(address, session.status())};
  const absl::StatusOr<v1::ServerInfo> info = (*session)->client()->GetServerInfo();
  if (!info.ok()) return {UnreachableServer(address, info.status())};
  std::vector<Finding> findings = {
      {"server", "reachable", Finding::State::kOk, LogSafe(address), ""}};
  Append(FindingsOfServer(*info, LWQ_VERSION), findings);
  return findings;
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
  std::vector<Finding> findings = FindingsOfMachine(ReadMachineFacts(data));
  Append(LookAtServer(flags, data), findings);
  if (!invocation.arguments.empty()) {
    const std::string& directory = invocation.arguments[0];
    if (!IsModelPath(directory)) {
      return Failure(reasons::kModelNotFound,
                     absl::StrCat("there is no model directory or GGUF file ", LogSafe(directory)));
    }
    LWQ_ASSIGN_OR_RETURN(std::vector<Finding> of_model, CheckModelDirectory(directory));
    Append(std::move(of_model), findings);
  }
  *invocation.out << (flags.Has("json") ? FindingsJson(findings) + "\n" : FindingsText(findings));
  return AnyFailed(findings) ? kExitJobFailed : kExitOk;
}

}  // namespace

extern const CommandDef kDoctorCommand;
constinit const CommandDef kDoctorCommand = {
    .name = "doctor",
    .arguments = "[MODEL_DIR]",
    .summary = "Says what is wrong with this machine, the server and a model; 1 if anything is.",
    .examples = "  lwqctl doctor\n  lwqctl doctor ./llama\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
