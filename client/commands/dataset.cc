// dataset add|list|remove: texts and multiple-choice items.
#include <array>

#include "base/log.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/upload.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 3> kFlags = {{
    kAllTenantsFlag,
    {"id", "ID", "add: the dataset's name (default: from its digest)"},
    kTenantFlag,
}};

absl::StatusOr<int> AddDataset(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(
      const v1::Dataset dataset,
      UploadDataset(session->client(), invocation.arguments[1], invocation.flags.Get("id")));
  if (invocation.flags.Has("json")) return PrintJson(invocation, dataset);
  *invocation.out << ShortName(dataset.name()) << "\n";
  return kExitOk;
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListDatasetsRequest request;
  SetTenants(invocation.flags, request);
  LWQ_ASSIGN_OR_RETURN(const v1::ListDatasetsResponse all,
                       AllPages(session->client(), &Client::ListDatasets, request));
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", "KIND", ">SIZE", "FILE", "DESCRIPTION", "TENANT"});
  for (const v1::Dataset& dataset : all.datasets()) {
    table.AddRow({ShortName(dataset.name()), v1::Dataset::Kind_Name(dataset.kind()),
                  FormatBytes(dataset.blob().size_bytes()), LogSafe(dataset.display_name()),
                  LogSafe(dataset.description()), TenantText(dataset)});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Remove(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_RETURN_IF_ERROR(
      session->client()->DeleteDataset(FullName("datasets", invocation.arguments[1])));
  *invocation.out << (invocation.flags.Has("json") ? "{\"removed\": true}\n" : "removed\n");
  return kExitOk;
}

constexpr std::array<Subcommand, 3> kSubcommands = {{
    {"add", 1, 1, AddDataset},
    {"list", 0, 0, List},
    {"remove", 1, 1, Remove},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr std::array<Advice, 1> kAdvice = {
    {{"NOT_FOUND", "lwqctl dataset list shows which there are"}}};

}  // namespace

extern const CommandDef kDatasetCommand;
constinit const CommandDef kDatasetCommand = {
    .name = "dataset",
    .arguments = "add FILE | list | remove DATASET",
    .summary = "Uploads, lists and removes texts (.txt) and items (.jsonl).",
    .examples = "  lwqctl dataset add held-out.txt\n  lwqctl dataset remove held-out\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 2,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
