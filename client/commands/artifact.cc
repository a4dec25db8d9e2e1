// artifact list|get|verify|diff|convert: results.
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/convert_artifact.h"
#include "client/download.h"
#include "client/errors.h"
#include "client/interrupt.h"
#include "client/job_display.h"
#include "client/local_artifact.h"
#include "client/plan_diff.h"
#include "client/progress.h"
#include "client/report.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/verify_artifact.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 5> kFlags = {{
    kAllTenantsFlag,
    {"format", "NAME", "convert: compressed-tensors, gptq or gguf", "compressed-tensors gptq gguf"},
    {"out", "PATH",
     "get, convert: where it goes: a directory that is empty or does not exist, or for GGUF a file "
     "FILE.gguf"},
    {"round-scales", "",
     "convert: round scales that the other kind cannot hold, instead of refusing"},
    kTenantFlag,
}};

// ARTIFACT itself, or the artifact of a job.
absl::StatusOr<v1::Artifact> Find(Client* client, const std::string& name) {
  if (!absl::StartsWith(name, "jobs/")) return client->GetArtifact(FullName("artifacts", name));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(name));
  if (job.artifact().empty()) {
    const bool yet = !IsTerminal(job.state());
    const bool had = job.state() == v1::Job::SUCCEEDED;
    return Failure(
        reasons::kNoArtifact,
        absl::StrCat(name, " is ", StateName(job.state()), " and has no artifact",
                     yet   ? absl::StrCat(" yet: lwqctl watch ", ShortName(name), " waits for it")
                     : had ? " any more: it was deleted"
                           : ""));
  }
  return client->GetArtifact(job.artifact());
}

absl::StatusOr<int> Get(Invocation& invocation) {
  std::string out = invocation.flags.Get("out");
  while (out.size() > 1 && absl::EndsWith(out, "/")) out.pop_back();
  if (out.empty()) return Failure(reasons::kUsage, "--out is missing");
  LWQ_RETURN_IF_ERROR(CheckOutputPlace(out));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::Artifact artifact,
                       Find(session->client(), invocation.arguments[1]));
  LWQ_RETURN_IF_ERROR(CheckOutputRoom(out, artifact.total_bytes()));
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
  LWQ_RETURN_IF_ERROR(Publish(staging, out));
  if (invocation.flags.Has("json")) return PrintJson(invocation, artifact);
  *invocation.out << out << "\n";
  return kExitOk;
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListArtifactsRequest request;
  SetTenants(invocation.flags, request);
  LWQ_ASSIGN_OR_RETURN(const v1::ListArtifactsResponse all,
                       AllPages(session->client(), &Client::ListArtifacts, request));
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", "JOB", ">FILES", ">WEIGHTS", ">AGE", "TENANT"});
  for (const v1::Artifact& artifact : all.artifacts()) {
    table.AddRow({ShortName(artifact.name()), ShortName(artifact.job()),
                  absl::StrCat(artifact.files_size()), FormatBytes(artifact.weight_bytes()),
                  AgeText(artifact.create_time()), TenantText(artifact)});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Verify(Invocation& invocation) {
  const std::string& path = invocation.arguments[1];
  LWQ_ASSIGN_OR_RETURN(const VerifiedArtifact verified, VerifyArtifactAt(path));
  if (invocation.flags.Has("json")) {
    *invocation.out << "{\"files\":" << verified.num_files
                    << ",\"gguf_tensors\":" << verified.num_tensors
                    << ",\"bytes\":" << verified.bytes << "}\n";
    return kExitOk;
  }
  *invocation.out << "as the manifest says: " << verified.num_files << " files, "
                  << FormatBytes(verified.bytes);
  if (verified.num_tensors > 0) *invocation.out << ", " << verified.num_tensors << " tensors read";
  *invocation.out << "\n";
  return kExitOk;
}

absl::StatusOr<int> Convert(Invocation& invocation) {
  ConvertFlags flags;
  flags.source = invocation.arguments[1];
  flags.out = invocation.flags.Get("out");
  while (flags.out.size() > 1 && absl::EndsWith(flags.out, "/")) flags.out.pop_back();
  flags.round_scales = invocation.flags.Has("round-scales");
  LWQ_ASSIGN_OR_RETURN(
      flags.format, invocation.flags.GetChoice("format", {"compressed-tensors", "gguf", "gptq"}));
  if (flags.out.empty() || flags.format.empty()) {
    return Failure(reasons::kUsage, "--format and --out are needed");
  }
  CatchInterrupts();
  LWQ_ASSIGN_OR_RETURN(const std::string answer, ConvertArtifactAt(flags));
  if (invocation.flags.Has("json")) {
    *invocation.out << answer;
    return kExitOk;
  }
  LWQ_ASSIGN_OR_RETURN(const std::string text, ConvertedText(answer, flags.out));
  *invocation.out << text;
  return kExitOk;
}

// Asked for a server once a side is none that lies here.
class DiffServer {
 public:
  explicit DiffServer(const Flags& flags) : flags_(flags) {}
  absl::StatusOr<Client*> client() {
    if (session_ == nullptr) {
      LWQ_ASSIGN_OR_RETURN(session_, Session::OpenService(flags_));
    }
    return session_->client();
  }

 private:
  const Flags& flags_;
  std::unique_ptr<Session> session_;
};

absl::StatusOr<DiffSide> Side(DiffServer& server, const std::string& name) {
  if (IsArtifactHere(name)) return ReadSideAt(name);
  DiffSide side;
  LWQ_ASSIGN_OR_RETURN(Client* const client, server.client());
  LWQ_ASSIGN_OR_RETURN(side.artifact, Find(client, name));
  LWQ_ASSIGN_OR_RETURN(side.job, client->GetJob(side.artifact.job()));
  return side;
}

absl::StatusOr<int> DiffOf(Invocation& invocation, const std::string& first,
                           const std::string& second) {
  DiffServer server(invocation.flags);
  LWQ_ASSIGN_OR_RETURN(const DiffSide a, Side(server, first));
  LWQ_ASSIGN_OR_RETURN(const DiffSide b, Side(server, second));
  const bool json = invocation.flags.Has("json");
  *invocation.out << (json ? DiffJson(a, b) + "\n" : DiffText(a, b));
  return kExitOk;
}

absl::StatusOr<int> Diff(Invocation& invocation) {
  return DiffOf(invocation, invocation.arguments[1], invocation.arguments[2]);
}

// `diff A B` is `artifact diff A B`.
absl::StatusOr<int> RunDiff(Invocation& invocation) {
  return DiffOf(invocation, invocation.arguments[0], invocation.arguments[1]);
}

constexpr std::array<Subcommand, 5> kSubcommands = {{
    {"convert", 1, 1, Convert},
    {"diff", 2, 2, Diff},
    {"get", 1, 1, Get},
    {"list", 0, 0, List},
    {"verify", 1, 1, Verify},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr char kMakeItAgain[] =
    "submit its job again: what the server has lost is made anew (lwqctl quantize does so itself)";
constexpr std::array<Advice, 5> kAdvice = {{
    {"BLOB_CORRUPT", kMakeItAgain},
    {"BLOB_MISSING", kMakeItAgain},
    {"NOT_FOUND", "lwqctl artifact list shows which there are"},
    {"NO_ARTIFACT", "lwqctl explain JOB says how it stands; lwqctl artifact list, which there are"},
    {"VERIFY_MISMATCH",
     "the files here are not as they were made: get them again (lwqctl artifact get)"},
}};

}  // namespace

extern const CommandDef kArtifactCommand, kDiffCommand;
constinit const CommandDef kDiffCommand = {
    .name = "diff",
    .arguments = "A B",
    .summary = "Compares two artifacts: sizes, quality, the format of every unit.",
    .examples =
        "  lwqctl diff jobs/j-1 jobs/j-2\n"
        "  lwqctl diff ./small ./smaller            (directories, or files FILE.gguf: no server)\n"
        "A and B are artifacts of the server, jobs/JOB, or what lies here with its "
        "lwq-report.json.\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 2,
    .most_arguments = 2,
    .run = RunDiff,
};
constinit const CommandDef kArtifactCommand = {
    .name = "artifact",
    .arguments = "convert DIR | diff A B | get ARTIFACT|jobs/JOB | list | verify DIR|FILE.gguf",
    .summary =
        "Lists, fetches (resumable, checked by digest), compares and proves artifacts; writes one "
        "as another kind.",
    .examples =
        "  lwqctl artifact convert ./small --format gptq --out ./small-gptq\n"
        "  lwqctl artifact diff jobs/j-1 jobs/j-2\n"
        "  lwqctl artifact get jobs/j-1 --out ./small\n"
        "  lwqctl artifact verify small.gguf\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 3,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
