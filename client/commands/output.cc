#include "client/commands/output.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/budget_text.h"
#include "client/errors.h"
#include "client/progress.h"
#include "client/results.h"
#include "client/size_text.h"
#include "client/suggest.h"
#include "client/table.h"

namespace lwq::client {

std::string FullName(absl::string_view collection, const std::string& name) {
  return absl::StrContains(name, '/') ? name : absl::StrCat(collection, "/", name);
}

std::string ShortName(const std::string& name) {
  const size_t slash = name.rfind('/');
  return LogSafe(slash == std::string::npos ? name : name.substr(slash + 1));
}

bool IsWide(const Invocation& invocation) { return invocation.flags.Get("output") == "wide"; }

absl::StatusOr<int> PrintJson(const Invocation& invocation,
                              const google::protobuf::Message& message) {
  LWQ_ASSIGN_OR_RETURN(const std::string json, ToJson(message));
  *invocation.out << json << "\n";
  return kExitOk;
}

absl::StatusOr<v1::ListTasksResponse> AllTasks(Client* client, const std::string& job) {
  v1::ListTasksRequest request;
  request.set_job(job);
  return AllPages(client, &Client::ListTasks, request);
}

std::string AgeText(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  const absl::Duration age = absl::Now() - absl::FromUnixSeconds(time.seconds());
  return FormatSeconds(std::max(0.0, absl::ToDoubleSeconds(age)));
}

int JobExitCode(const v1::Job& job) {
  return job.state() == v1::Job::FAILED || job.state() == v1::Job::CANCELLED ? kExitJobFailed
                                                                             : kExitOk;
}

std::map<std::string, std::string> DatasetNames(Client* client) {
  std::map<std::string, std::string> names;
  const absl::StatusOr<v1::ListDatasetsResponse> all =
      AllPages(client, &Client::ListDatasets, v1::ListDatasetsRequest());
  if (!all.ok()) return names;
  for (const v1::Dataset& dataset : all->datasets()) {
    if (!dataset.display_name().empty()) names[dataset.name()] = LogSafe(dataset.display_name());
  }
  return names;
}

std::string JobText(const v1::Job& job, const std::map<std::string, std::string>& datasets) {
  Table table({"", ""});
  table.AddRow({"job", ShortName(job.name())});
  table.AddRow({"state", StateName(job.state())});
  if (job.phase() != v1::PHASE_UNSPECIFIED) table.AddRow({"phase", PhaseName(job.phase())});
  const v1::Progress& progress = job.progress();
  const std::string share =
      HasFraction(job.state()) ? absl::StrFormat("%.0f%%, ", 100 * progress.fraction()) : "";
  table.AddRow({"progress", absl::StrFormat("%s%d of %d tasks done, %d from the cache", share,
                                            progress.tasks_done(), progress.tasks_total(),
                                            progress.tasks_cached())});
  if (!job.queue_detail().empty()) table.AddRow({"waits for", LogSafe(job.queue_detail())});
  if (job.spec().has_quantize()) {
    const v1::QuantizeSpec& spec = job.spec().quantize();
    table.AddRow({"model", ShortName(spec.model())});
    table.AddRow({"budget", FormatBudget(spec.budget())});
    table.AddRow({"method", absl::StrCat(spec.method(), ", scorer ", spec.scorer(), ", allocator ",
                                         spec.allocator())});
  }
  if (job.spec().has_evaluate()) {
    table.AddRow({"model", LogSafe(job.spec().evaluate().model_directory())});
  }
  if (job.plan().units_size() > 0) {
    table.AddRow({"weights", absl::StrCat(FormatCount(job.plan().weight_file_bytes()), " bytes, ",
                                          absl::StrFormat("%.3f", job.plan().bits_per_weight()),
                                          " bits per weight")});
    table.AddRow({"formats", FormatsText(job.plan())});
    table.AddRow({"chosen", LogSafe(job.plan().explanation())});
  }
  if (!job.artifact().empty()) table.AddRow({"artifact", ShortName(job.artifact())});
  if (job.has_failure()) {
    table.AddRow(
        {"failure", absl::StrCat(job.failure().reason(), ": ", LogSafe(job.failure().message()))});
  }
  for (const std::string& warning : job.warnings()) table.AddRow({"warning", LogSafe(warning)});
  table.AddRow({"age", AgeText(job.create_time())});
  std::string text = table.Text();
  const std::string evaluation = EvaluationTable(job, datasets);
  if (!evaluation.empty()) absl::StrAppend(&text, "\n", evaluation);
  return text;
}

absl::StatusOr<int> RunSubcommand(absl::Span<const Subcommand> subcommands,
                                  Invocation& invocation) {
  std::vector<std::string> names;
  for (const Subcommand& subcommand : subcommands) {
    names.push_back(subcommand.name);
    if (invocation.arguments[0] != subcommand.name) continue;
    const int count = static_cast<int>(invocation.arguments.size()) - 1;
    if (count >= subcommand.fewest_arguments && count <= subcommand.most_arguments) {
      return subcommand.run(invocation);
    }
    return Failure(
        reasons::kUsage,
        absl::StrCat("\"", subcommand.name, "\" takes ", subcommand.fewest_arguments,
                     subcommand.most_arguments == subcommand.fewest_arguments
                         ? ""
                         : absl::StrCat(" to ", subcommand.most_arguments),
                     subcommand.most_arguments == 1 ? " argument" : " arguments", "; got ", count));
  }
  return Failure(reasons::kUsage, absl::StrCat("there is no \"", LogSafe(invocation.arguments[0]),
                                               "\" here; expected ", absl::StrJoin(names, ", "),
                                               DidYouMean(invocation.arguments[0], names)));
}

}  // namespace lwq::client
