// model add|list|remove|show: registered models.
#include <array>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/model_argument.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/job_run.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 3> kFlags = {{
    kAllTenantsFlag,
    {"id", "ID", "add: the model's name (default: from the directory)"},
    kTenantFlag,
}};

std::string ModelText(const v1::Model& model) {
  Table table({"", ""});
  table.AddRow({"model", ShortName(model.name())});
  table.AddRow({"state", v1::Model::State_Name(model.state())});
  table.AddRow({"directory", LogSafe(model.source().directory())});
  if (model.has_failure()) {
    table.AddRow({"failure", absl::StrCat(model.failure().reason(), ": ",
                                          LogSafe(model.failure().message()))});
  }
  if (model.has_manifest()) {
    const v1::ModelManifest& manifest = model.manifest();
    table.AddRow({"architecture", LogSafe(manifest.architecture())});
    table.AddRow({"layers", absl::StrCat(manifest.inventory().num_layers())});
    table.AddRow({"weights", absl::StrCat(FormatCount(manifest.weight_bytes()), " bytes, ",
                                          LogSafe(manifest.inventory().weight_dtype()))});
    table.AddRow({"digest", LogSafe(manifest.digest())});
  }
  return table.Text();
}

absl::StatusOr<int> Print(const Invocation& invocation, const v1::Model& model) {
  if (invocation.flags.Has("json")) return PrintJson(invocation, model);
  *invocation.out << ModelText(model);
  return kExitOk;
}

absl::StatusOr<int> AddModel(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  const auto note = [&](const std::string& text) { *invocation.err << text << "\n"; };
  LWQ_ASSIGN_OR_RETURN(const std::string directory,
                       ModelDirectory(invocation, invocation.arguments[1]));
  LWQ_ASSIGN_OR_RETURN(const v1::Model model,
                       RegisterModel(session.get(), directory, note, invocation.flags.Get("id")));
  return Print(invocation, model);
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListModelsRequest request;
  SetTenants(invocation.flags, request);
  LWQ_ASSIGN_OR_RETURN(const v1::ListModelsResponse all,
                       AllPages(session->client(), &Client::ListModels, request));
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", "STATE", "ARCHITECTURE", ">WEIGHTS", "DIRECTORY", "TENANT"});
  for (const v1::Model& model : all.models()) {
    table.AddRow({ShortName(model.name()), v1::Model::State_Name(model.state()),
                  LogSafe(model.manifest().architecture()),
                  FormatBytes(model.manifest().weight_bytes()), LogSafe(model.source().directory()),
                  TenantText(model)});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Remove(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_RETURN_IF_ERROR(session->client()->DeleteModel(FullName("models", invocation.arguments[1])));
  *invocation.out << (invocation.flags.Has("json") ? "{\"removed\": true}\n" : "removed\n");
  return kExitOk;
}

absl::StatusOr<int> Show(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::GetModelRequest request;
  request.set_name(FullName("models", invocation.arguments[1]));
  LWQ_ASSIGN_OR_RETURN(const v1::Model model, session->client()->GetModel(request));
  return Print(invocation, model);
}

constexpr std::array<Subcommand, 4> kSubcommands = {{
    {"add", 1, 1, AddModel},
    {"list", 0, 0, List},
    {"remove", 1, 1, Remove},
    {"show", 1, 1, Show},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr std::array<Advice, 1> kAdvice = {
    {{"NOT_FOUND", "lwqctl model list shows which there are"}}};

}  // namespace

extern const CommandDef kModelCommand;
constinit const CommandDef kModelCommand = {
    .name = "model",
    .arguments = "add DIRECTORY|hf://ORGANIZATION/NAME | list | remove MODEL | show MODEL",
    .summary = "Registers, lists and removes models; files stay where they lie.",
    .examples = "  lwqctl model add ./llama --id llama\n  lwqctl model list\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 2,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
