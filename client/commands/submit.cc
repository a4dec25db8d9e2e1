// submit: a quantize job on a server; does not wait.
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/spec_flags.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 4> kFlags = {{
    {"job-id", "ID", "the job's name (default: made by the server)"},
    {"label", "LIST", "KEY=VALUE labels, commas between"},
    {"priority", "LEVEL", "low, normal or high", "low normal high"},
    {"request-id", "UUID", "makes giving the command twice harmless (default: made here)"},
}};

absl::StatusOr<v1::CreateJobRequest> Request(const Flags& flags) {
  v1::CreateJobRequest request;
  request.set_job_id(flags.Get("job-id"));
  request.set_request_id(flags.Get("request-id"));
  LWQ_ASSIGN_OR_RETURN(const std::string priority,
                       flags.GetChoice("priority", {"low", "normal", "high"}));
  v1::Job* job = request.mutable_job();
  if (priority == "low") job->set_priority(v1::Job::LOW);
  if (priority == "normal") job->set_priority(v1::Job::NORMAL);
  if (priority == "high") job->set_priority(v1::Job::HIGH);
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> labels, flags.GetList("label"));
  for (const std::string& label : labels) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.first.empty() || !absl::StrContains(label, '=')) {
      return Failure(reasons::kFlagInvalid,
                     absl::StrCat("--label \"", LogSafe(label), "\": expected KEY=VALUE"));
    }
    (*job->mutable_labels())[parts.first] = parts.second;
  }
  LWQ_ASSIGN_OR_RETURN(*job->mutable_spec()->mutable_quantize(), SpecFromFlags(flags));
  return request;
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  LWQ_ASSIGN_OR_RETURN(v1::CreateJobRequest request, Request(flags));
  LWQ_RETURN_IF_ERROR(CheckDatasetFiles(flags));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  v1::QuantizeSpec* spec = request.mutable_job()->mutable_spec()->mutable_quantize();
  spec->set_model(FullName("models", invocation.arguments[0]));
  std::map<std::string, std::string> names;
  LWQ_RETURN_IF_ERROR(UploadDatasets(session->client(), flags, spec, &names));
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, session->client()->CreateJob(std::move(request)));
  if (flags.Has("json")) return PrintJson(invocation, job);
  // The name alone on stdout, for scripts.
  *invocation.out << ShortName(job.name()) << "\n" << std::flush;
  const std::string forecast = ForecastText(job.work());
  if (!forecast.empty()) *invocation.err << "expected: " << forecast << "\n";
  return kExitOk;
}

}  // namespace

extern const CommandDef kSubmitCommand;
constinit const CommandDef kSubmitCommand = {
    .name = "submit",
    .arguments = "MODEL",
    .summary = "Submits a quantize job and prints its name.",
    .examples =
        "  lwqctl submit llama --budget 4bpw\n  lwqctl watch $(lwqctl submit llama --budget 900MiB "
        "--eval-text held-out.txt)\n",
    .flags = kFlags,
    .more_flags = SpecFlags,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
