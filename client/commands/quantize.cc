// quantize: a model directory and a budget in, an artifact directory out, in one command.
#include <array>
#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/commands/model_argument.h"
#include "client/download.h"
#include "client/errors.h"
#include "client/following.h"
#include "client/job_run.h"
#include "client/report.h"
#include "client/results.h"
#include "client/size_text.h"
#include "client/spec_flags.h"
#include "client/work_text.h"
#include "records/expected_size.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 3> kFlags = {{
    {"device", "NAME", "of the own worker: cpu (default) or cuda:N"},
    {"out", "PATH",
     "where the artifact goes: a directory that is empty or does not exist, or for GGUF a file "
     "FILE.gguf"},
    {"threads", "N", "threads of the own worker (default: all processors)"},
}};

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.pop_back();
  return path;
}

// Where unfinished downloads of a command with its own server lie; beside DIR otherwise.
std::string StagingDirectory(Session* session, const v1::Artifact& artifact,
                             const std::string& out) {
  if (session->embedded() == nullptr) return absl::StrCat(out, ".partial");
  return JoinPath(session->embedded()->paths().downloads, Basename(artifact.name()));
}

// At `out`, and where downloads of the own server lie until they are whole.
absl::Status CheckRoom(Session* session, const std::string& out, int64_t bytes) {
  LWQ_RETURN_IF_ERROR(CheckOutputRoom(out, bytes));
  if (session->embedded() == nullptr) return absl::OkStatus();
  return CheckOutputRoom(session->embedded()->paths().downloads, bytes);
}

absl::StatusOr<v1::Artifact> Fetch(Session* session, const std::string& name,
                                   const std::string& out) {
  LWQ_ASSIGN_OR_RETURN(v1::Artifact artifact, session->client()->GetArtifact(name));
  const std::string staging = StagingDirectory(session, artifact, out);
  LWQ_RETURN_IF_ERROR(DownloadArtifact(session->client(), artifact, staging));
  LWQ_RETURN_IF_ERROR(WriteReport(session->client(), artifact, staging));
  LWQ_RETURN_IF_ERROR(Publish(staging, out));
  return artifact;
}

// The same job where one is there, unless `reuse` is false; until it has ended.
absl::Status RunJob(Session* session, const v1::JobSpec& spec, const std::string& digest,
                    bool reuse, Following* following, JobDisplay* display,
                    QuantizeOutcome* outcome) {
  LWQ_ASSIGN_OR_RETURN(outcome->job, FindOrSubmit(session->client(), spec, digest, reuse));
  const std::string forecast = ForecastText(outcome->job.work());
  display->Note(absl::StrCat("job ", Basename(outcome->job.name()),
                             IsTerminal(outcome->job.state()) || forecast.empty()
                                 ? ""
                                 : absl::StrCat(", expected to take ", forecast)));
  // What is better known before the work than behind it.
  if (!IsTerminal(outcome->job.state())) {
    for (const std::string& warning : outcome->job.warnings()) {
      display->Note(absl::StrCat("warning: ", LogSafe(warning)));
    }
  }
  LWQ_ASSIGN_OR_RETURN(outcome->job, FollowJob(session, outcome->job.name(), display, following));
  return absl::OkStatus();
}

// What a server that reads a blob for the first time since it was damaged says of it, and what it
// says from then on.
bool IsLost(const absl::Status& status) {
  return HasReason(status, reasons::kBlobCorrupt) || HasReason(status, reasons::kBlobMissing);
}

absl::StatusOr<QuantizeOutcome> Quantize(Session* session, const Flags& flags,
                                         const std::string& model_directory, JobDisplay* display,
                                         v1::QuantizeSpec spec) {
  QuantizeOutcome outcome;
  outcome.directory = WithoutSlashes(flags.Get("out"));
  Client* client = session->client();
  const auto note = [display](const std::string& text) { display->Note(text); };
  LWQ_ASSIGN_OR_RETURN(const v1::Model model, RegisterModel(session, model_directory, note));
  spec.set_model(model.name());
  LWQ_RETURN_IF_ERROR(
      CheckRoom(session, outcome.directory, ExpectedFileBytes(spec, model.manifest())));
  LWQ_RETURN_IF_ERROR(UploadDatasets(client, flags, &spec, &outcome.names));
  v1::JobSpec job_spec;
  *job_spec.mutable_quantize() = spec;
  const std::string digest = RequestDigest(job_spec, model.manifest().digest());
  if (session->embedded() != nullptr && session->embedded()->started_here()) {
    CancelLeftovers(client, session->embedded()->paths().run, digest);
  }
  std::optional<Following> following;  // from before the job is looked for until it has ended
  if (session->embedded() != nullptr) following.emplace(session->embedded()->paths().run, digest);
  LWQ_RETURN_IF_ERROR(RunJob(session, job_spec, digest, !spec.no_cache(),
                             following ? &*following : nullptr, display, &outcome));
  if (outcome.job.state() != v1::Job::SUCCEEDED) return outcome;
  absl::StatusOr<v1::Artifact> fetched = Fetch(session, outcome.job.artifact(), outcome.directory);
  if (IsLost(fetched.status())) {
    note(absl::StrCat("the server has lost files of ", outcome.job.artifact(),
                      ", or holds them damaged: they are made again"));
    LWQ_RETURN_IF_ERROR(RunJob(session, job_spec, digest, /*reuse=*/false,
                               following ? &*following : nullptr, display, &outcome));
    if (outcome.job.state() != v1::Job::SUCCEEDED) return outcome;
    fetched = Fetch(session, outcome.job.artifact(), outcome.directory);
  }
  LWQ_ASSIGN_OR_RETURN(outcome.artifact, std::move(fetched));
  return outcome;
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const absl::Time begin = absl::Now();
  const Flags& flags = invocation.flags;
  // Everything that can be refused without a server is refused first.
  if (!flags.Has("out") || flags.Get("out").empty()) {
    return Failure(reasons::kUsage, "--out is missing");
  }
  LWQ_ASSIGN_OR_RETURN(const v1::QuantizeSpec spec, SpecFromFlags(flags));
  const std::string out = WithoutSlashes(flags.Get("out"));
  LWQ_RETURN_IF_ERROR(CheckOutputPlace(out));
  if (IsFileOutput(out) && !IsForFiles(spec)) {
    return Failure(reasons::kUsage,
                   absl::StrCat("--out ", LogSafe(out),
                                " names a GGUF file; add --for llama.cpp, or give a "
                                "directory"));
  }
  LWQ_RETURN_IF_ERROR(CheckDatasetFiles(flags));
  LWQ_ASSIGN_OR_RETURN(const std::string model,
                       ModelDirectory(invocation, invocation.arguments[0]));
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::OpenEmbedded(flags));
  const bool own_worker = session->embedded() != nullptr && session->embedded()->started_here();
  if (!own_worker && (flags.Has("device") || flags.Has("threads") || flags.Has("memory"))) {
    *invocation.err
        << "the workers that run already keep their own --device and --threads, and --memory is a "
           "ceiling for this job alone\n";
  }
  JobDisplay display(invocation.err, StderrIsTerminal());
  absl::StatusOr<QuantizeOutcome> outcome = Quantize(session.get(), flags, model, &display, spec);
  session->Close();
  if (!outcome.ok()) return outcome.status();
  if (outcome->job.state() != v1::Job::SUCCEEDED) {
    return ReportFailedJob(outcome->job, invocation.err);
  }
  outcome->seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  if (flags.Has("json")) {
    LWQ_ASSIGN_OR_RETURN(const std::string json, QuantizeJson(*outcome));
    *invocation.out << json << "\n";
  } else {
    *invocation.out << QuantizeTable(*outcome);
  }
  return kExitOk;
}

constexpr std::array<Advice, 1> kAdvice = {{{"INTERRUPTED",
                                             "run the same command again: it goes on where it was. "
                                             "With --no-cache that is another job, and "
                                             "lwqctl watch JOB waits for one that goes on"}}};

}  // namespace

extern const CommandDef kQuantizeCommand;
constinit const CommandDef kQuantizeCommand = {
    .name = "quantize",
    .arguments = "MODEL_DIR|hf://ORGANIZATION/NAME",
    .summary = "Makes a smaller model within a budget: all in one command, no set-up.",
    .examples =
        "  lwqctl quantize ./llama --budget 3.25bpw --out ./llama-3.25\n"
        "  lwqctl quantize ./llama --budget 900MiB --method gptq --bits 2,3,4,8 \\\n"
        "      --eval-text held-out.txt --eval-tasks choices.jsonl --out ./small\n"
        "  lwqctl quantize ./llama --budget Q4_K_M --for llama.cpp --out llama.gguf\n"
        "  lwqctl quantize hf://HuggingFaceTB/SmolLM2-135M --preset 4bit --out ./small\n"
        "A name is looked up at $HF_ENDPOINT (the public hub) with $HF_TOKEN.\n"
        "A command that was broken off goes on where it was when it is given again.\n",
    .flags = kFlags,
    .more_flags = SpecFlags,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client
