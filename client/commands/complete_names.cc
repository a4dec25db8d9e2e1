// complete-names: what the completion scripts ask for the names of jobs and other things. Hidden;
// says nothing where there is no server or no answer within a moment.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/commands/output.h"
#include "client/contexts.h"
#include "client/errors.h"
#include "client/session.h"

namespace lwq::client {
namespace {

constexpr unsigned kMostSeconds = 2;
constexpr int kMostNames = 200;

using Names = std::vector<std::string>;

template <typename List>
Names NamesOf(const List& list) {
  Names names;
  for (const auto& one : list) names.push_back(ShortName(one.name()));
  return names;
}

absl::StatusOr<Names> Ask(Client* client, const std::string& kind) {
  if (kind == "jobs") {
    v1::ListJobsRequest request;
    request.set_page_size(kMostNames);
    LWQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse page, client->ListJobs(request));
    return NamesOf(page.jobs());
  }
  if (kind == "artifacts") {
    v1::ListArtifactsRequest request;
    request.set_page_size(kMostNames);
    LWQ_ASSIGN_OR_RETURN(const v1::ListArtifactsResponse page, client->ListArtifacts(request));
    return NamesOf(page.artifacts());
  }
  if (kind == "models") {
    LWQ_ASSIGN_OR_RETURN(const v1::ListModelsResponse page, client->ListModels({}));
    return NamesOf(page.models());
  }
  if (kind == "datasets") {
    LWQ_ASSIGN_OR_RETURN(const v1::ListDatasetsResponse page, client->ListDatasets({}));
    return NamesOf(page.datasets());
  }
  if (kind == "workers") {
    LWQ_ASSIGN_OR_RETURN(const v1::ListWorkersResponse page, client->ListWorkers({}));
    return NamesOf(page.workers());
  }
  if (kind == "tokens") {
    LWQ_ASSIGN_OR_RETURN(const v1::ListTokensResponse page, client->ListTokens({}));
    return NamesOf(page.tokens());
  }
  return Names();
}

absl::StatusOr<Names> NamesOfKind(const Flags& flags, const std::string& kind) {
  if (kind == "contexts") {
    LWQ_ASSIGN_OR_RETURN(const Contexts contexts, ReadContexts(ContextsPath()));
    Names names = {"local"};
    for (const auto& [name, context] : contexts.all) names.push_back(name);
    return names;
  }
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  return Ask(session->client(), kind);
}

// A shell reads what is completed from once more: what a server calls its jobs, or a file its
// servers, must not be a command there.
bool IsPlain(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

// Whoever presses a key does not want to wait, or to read of errors.
absl::StatusOr<int> Run(Invocation& invocation) {
  ::signal(SIGALRM, [](int) { ::_exit(kExitOk); });
  ::alarm(kMostSeconds);
  const absl::StatusOr<Names> names = NamesOfKind(invocation.flags, invocation.arguments[0]);
  if (!names.ok()) return kExitOk;
  for (const std::string& name : *names) {
    if (IsPlain(name)) *invocation.out << name << "\n";
  }
  return kExitOk;
}

}  // namespace

extern const CommandDef kCompleteNamesCommand;
constinit const CommandDef kCompleteNamesCommand = {
    .name = "complete-names",
    .arguments = "KIND",
    .summary = "Prints names for completion scripts.",
    .examples = "",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
    .hidden = true,
};

}  // namespace lwq::client
