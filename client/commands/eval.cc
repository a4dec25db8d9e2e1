// eval: perplexity, KL and accuracies of a model or an artifact, in one command.
#include <array>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/job_run.h"
#include "client/results.h"
#include "client/session.h"
#include "client/upload.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 11> kFlags = {{
    {"against", "DIR", "source model, for the KL divergence"},
    {"bos", "WHEN", "begin of text: tokenizer, always or never (default tokenizer)",
     "tokenizer always never"},
    {"compute", "TYPE", "f32, or bf16: faster where the processor has it (default f32)",
     "f32 bf16"},
    {"device", "NAME", "of the own worker: cpu (default) or cuda:N"},
    {"limit", "N", "first N items of each task file (default: all)"},
    {"memory", "SIZE", "ceiling of the own worker's memory, such as 2GiB"},
    {"sequence-length", "N", "windows of the text (default 256)"},
    {"tasks", "FILES", "multiple-choice JSON lines, commas between"},
    {"text", "FILE", "text for perplexity and KL"},
    {"threads", "N", "threads of the own worker (default: all processors)"},
    {"tokens", "N", "tokens of the text that are used (default 16384)"},
}};

absl::StatusOr<std::string> Directory(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::canonical(path, error);
  if (!error && IsModelPath(absolute.string())) return absolute.string();
  return Failure(reasons::kModelNotFound,
                 absl::StrCat("there is no model directory or GGUF file ", LogSafe(path)));
}

// All of the spec that needs no server.
absl::StatusOr<v1::EvaluateSpec> Spec(const Invocation& invocation) {
  const Flags& flags = invocation.flags;
  v1::EvaluateSpec spec;
  LWQ_ASSIGN_OR_RETURN(*spec.mutable_model_directory(), Directory(invocation.arguments[0]));
  if (flags.Has("against")) {
    LWQ_ASSIGN_OR_RETURN(*spec.mutable_against_directory(), Directory(flags.Get("against")));
  }
  LWQ_ASSIGN_OR_RETURN(*spec.mutable_compute(), flags.GetChoice("compute", {"f32", "bf16"}));
  v1::Evaluation* evaluation = spec.mutable_evaluation();
  LWQ_ASSIGN_OR_RETURN(*evaluation->mutable_bos(),
                       flags.GetChoice("bos", {"tokenizer", "always", "never"}));
  constexpr int64_t kMost = int64_t{1} << 40;
  LWQ_ASSIGN_OR_RETURN(const int64_t limit, flags.GetInt("limit", 0, 1, kMost));
  LWQ_ASSIGN_OR_RETURN(const int64_t tokens, flags.GetInt("tokens", 0, 1, kMost));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, flags.GetInt("sequence-length", 0, 2, kMost));
  evaluation->set_limit(limit);
  evaluation->set_text_tokens(tokens);
  evaluation->set_sequence_length(window);
  return spec;
}

absl::Status Upload(Client* client, const std::string& text, const std::vector<std::string>& tasks,
                    v1::Evaluation* evaluation, std::map<std::string, std::string>* names) {
  if (!text.empty()) {
    LWQ_ASSIGN_OR_RETURN(const v1::Dataset dataset, UploadDataset(client, text));
    evaluation->set_text_dataset(dataset.name());
    (*names)[dataset.name()] = Basename(text);
  }
  for (const std::string& task : tasks) {
    LWQ_ASSIGN_OR_RETURN(const v1::Dataset dataset, UploadDataset(client, task));
    evaluation->add_task_datasets(dataset.name());
    (*names)[dataset.name()] = Basename(task);
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Run(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  LWQ_ASSIGN_OR_RETURN(v1::EvaluateSpec spec, Spec(invocation));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> tasks, flags.GetList("tasks"));
  if (!flags.Has("text") && tasks.empty()) {
    return Failure(reasons::kUsage, "nothing to measure: give --text, --tasks or both");
  }
  if (flags.Has("text") && HasChoices(flags.Get("text"))) {
    return Failure(reasons::kUsage, absl::StrCat("--text ", LogSafe(flags.Get("text")),
                                                 " holds multiple-choice items: give --tasks"));
  }
  for (const std::string& task : tasks) {
    if (!FileExists(task) || HasChoices(task)) continue;
    return Failure(reasons::kUsage, absl::StrCat("--tasks ", LogSafe(task),
                                                 " holds no multiple-choice items: give --text"));
  }
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenEmbedded(flags));
  std::map<std::string, std::string> names;
  LWQ_RETURN_IF_ERROR(
      Upload(session->client(), flags.Get("text"), tasks, spec.mutable_evaluation(), &names));
  v1::CreateJobRequest request;
  *request.mutable_job()->mutable_spec()->mutable_evaluate() = spec;
  LWQ_ASSIGN_OR_RETURN(const v1::Job created, session->client()->CreateJob(std::move(request)));
  JobDisplay display(invocation.err, StderrIsTerminal());
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, FollowJob(session.get(), created.name(), &display));
  session->Close();
  if (job.state() != v1::Job::SUCCEEDED) return ReportFailedJob(job, invocation.err);
  if (flags.Has("json")) return PrintJson(invocation, job);
  *invocation.out << EvaluationTable(job, names);
  return kExitOk;
}

}  // namespace

extern const CommandDef kEvalCommand;
constinit const CommandDef kEvalCommand = {
    .name = "eval",
    .arguments = "MODEL_OR_ARTIFACT_DIR",
    .summary = "Measures a model: perplexity, KL to a source, multiple choice.",
    .examples =
        "  lwqctl eval ./small --against ./llama --text held-out.txt --tasks "
        "piqa.jsonl,arc.jsonl\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Run,
};

}  // namespace lwq::client
