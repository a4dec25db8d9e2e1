// artifact list|get: results.
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/download.h"
#include "client/errors.h"
#include "client/job_display.h"
#include "client/report.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 1> kFlags = {{
    {"out", "DIR", "get: where it goes; must not exist, or be an empty directory"},
}};

// ARTIFACT itself, or the artifact of a job.
absl::StatusOr<v1::Artifact> Find(Client* client, const std::string& name) {
  if (!absl::StartsWith(name, "jobs/")) return client->GetArtifact(FullName("artifacts", name));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(name));
  if (job.artifact().empty()) {
    return PreconditionFailure("NO_ARTIFACT", absl::StrCat(name, " has no artifact (yet)"));
  }
  return client->GetArtifact(job.artifact());
}

absl::StatusOr<int> Get(Invocation& invocation) {
  std::string out = invocation.flags.Get("out");
  while (out.size() > 1 && absl::EndsWith(out, "/")) out.pop_back();
  if (out.empty()) return InvalidFailure("USAGE", "--out is missing");
  LWQ_RETURN_IF_ERROR(CheckOutputFree(out));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::Artifact artifact,
                       Find(session->client(), invocation.arguments[1]));
  // What is there of an earlier attempt is used.
  const std::string staging = absl::StrCat(out, ".partial");
  const bool terminal = StderrIsTerminal();
  int shown = -1;
  LWQ_RETURN_IF_ERROR(
      DownloadArtifact(session->client(), artifact, staging, [&](int64_t done, int64_t total) {
        const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
        if (!terminal || percent == shown) return;
        shown = percent;
        *invocation.err << absl::StrFormat("\r%3d%%  %s", percent, FormatBytes(done)) << std::flush;
      }));
  if (terminal) *invocation.err << "\n";
  LWQ_RETURN_IF_ERROR(WriteReport(session->client(), artifact, staging));
  LWQ_RETURN_IF_ERROR(PublishDirectory(staging, out));
  if (invocation.flags.Has("json")) return PrintJson(invocation, artifact);
  *invocation.out << out << "\n";
  return kExitOk;
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListArtifactsResponse all;
  v1::ListArtifactsRequest request;
  do {
    LWQ_ASSIGN_OR_RETURN(const v1::ListArtifactsResponse page,
                         session->client()->ListArtifacts(request));
    all.mutable_artifacts()->MergeFrom(page.artifacts());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", "JOB", ">FILES", ">WEIGHTS", ">AGE"});
  for (const v1::Artifact& artifact : all.artifacts()) {
    table.AddRow({ShortName(artifact.name()), ShortName(artifact.job()),
                  absl::StrCat(artifact.files_size()), FormatBytes(artifact.weight_bytes()),
                  AgeText(artifact.create_time())});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

constexpr std::array<Subcommand, 2> kSubcommands = {{
    {"get", 1, 1, Get},
    {"list", 0, 0, List},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

}  // namespace

extern const CommandDef kArtifactCommand;
constinit const CommandDef kArtifactCommand = {
    .name = "artifact",
    .arguments = "get ARTIFACT|jobs/JOB | list",
    .summary = "Lists artifacts and fetches them: resumable, checked by digest.",
    .examples = "  lwqctl artifact get jobs/j-1 --out ./small\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 2,
    .run = Run,
};

}  // namespace lwq::client
