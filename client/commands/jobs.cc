// jobs: what there is, newest first.
#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/budget_text.h"
#include "client/commands/output.h"
#include "client/commands/print_or_watch.h"
#include "client/progress.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/work_text.h"
#include "records/canonical.h"

namespace lwq::client {
namespace {

constexpr std::array<absl::string_view, 6> kStates = {"QUEUED",    "RUNNING", "CANCELLING",
                                                      "SUCCEEDED", "FAILED",  "CANCELLED"};
// What one of lwq's own clients marks its jobs with, to find them again; nothing for people.
constexpr char kOwnLabels[] = "lwq-";

constexpr std::array<FlagDef, 7> kFlags = {{
    kAllTenantsFlag,
    {"label", "KEY=VALUE", "only jobs with this label"},
    {"limit", "N", "at most so many (default 50)"},
    {"model", "MODEL", "only jobs of this model"},
    {"state", "STATE", "only QUEUED, RUNNING, CANCELLING, SUCCEEDED, FAILED or CANCELLED",
     "QUEUED RUNNING CANCELLING SUCCEEDED FAILED CANCELLED"},
    kTenantFlag,
    kWatchFlag,
}};

absl::StatusOr<v1::ListJobsRequest> Filter(const Flags& flags) {
  v1::ListJobsRequest request;
  SetTenants(flags, request);
  if (flags.Has("model")) request.set_model(FullName("models", flags.Get("model")));
  if (flags.Has("state")) {
    Flags upper;
    upper.Set("state", absl::AsciiStrToUpper(flags.Get("state")));
    LWQ_ASSIGN_OR_RETURN(const std::string name, upper.GetChoice("state", kStates));
    v1::Job::State state = v1::Job::STATE_UNSPECIFIED;
    v1::Job::State_Parse(name, &state);
    request.set_state(state);
  }
  if (flags.Has("label")) {
    const std::pair<std::string, std::string> label =
        absl::StrSplit(flags.Get("label"), absl::MaxSplits('=', 1));
    request.set_label_key(label.first);
    request.set_label_value(label.second);
  }
  return request;
}

// All pages up to --limit.
absl::StatusOr<v1::ListJobsResponse> List(Client* client, const Flags& flags) {
  LWQ_ASSIGN_OR_RETURN(v1::ListJobsRequest request, Filter(flags));
  constexpr int64_t kMostJobs = 1'000'000;
  constexpr int64_t kMostOnAPage = 1000;
  LWQ_ASSIGN_OR_RETURN(const int64_t limit, flags.GetInt("limit", 50, 1, kMostJobs));
  v1::ListJobsResponse all;
  int pages = 0;
  do {
    request.set_page_size(static_cast<int32_t>(std::min(kMostOnAPage, limit - all.jobs_size())));
    request.set_page_token(all.next_page_token());
    LWQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse page, client->ListJobs(request));
    all.mutable_jobs()->MergeFrom(page.jobs());
    all.set_next_page_token(page.next_page_token());
  } while (!all.next_page_token().empty() && all.jobs_size() < limit && ++pages < kMostPages);
  return all;
}

void AddWide(const v1::Job& job, std::vector<std::string>& cells) {
  const v1::Progress& progress = job.progress();
  std::vector<std::string> labels;
  for (const auto& [key, value] : job.labels()) {
    if (absl::StartsWith(key, kOwnLabels)) continue;
    labels.push_back(LogSafe(absl::StrCat(key, "=", value)));
  }
  std::sort(labels.begin(), labels.end());
  cells.push_back(LogSafe(job.spec().quantize().method()));
  cells.push_back(LogSafe(job.spec().quantize().scorer()));
  cells.push_back(progress.has_remaining_seconds() ? FormatEstimate(progress.remaining_seconds())
                                                   : "-");
  cells.push_back(progress.running_size() > 0 ? RunningText(progress.running(0)) : "-");
  cells.push_back(ShortName(job.artifact()));
  cells.push_back(absl::StrJoin(labels, ","));
  cells.push_back(TenantText(job));
}

absl::StatusOr<std::string> TableText(const Invocation& invocation,
                                      const v1::ListJobsResponse& jobs) {
  if (invocation.flags.Has("json")) return JsonText(jobs);
  std::vector<std::string> headings = {"NAME",  "MODEL", "BUDGET", "STATE",
                                       "PHASE", ">DONE", ">AGE",   "NOTE"};
  if (IsWide(invocation)) {
    headings.insert(headings.end(),
                    {"METHOD", "SCORER", "LEFT", "NOW", "ARTIFACT", "LABELS", "TENANT"});
  }
  Table table(std::move(headings));
  for (const v1::Job& job : jobs.jobs()) {
    const bool quantize = job.spec().has_quantize();
    std::vector<std::string> cells = {
        ShortName(job.name()),
        quantize ? ShortName(job.spec().quantize().model())
                 : ShortName(job.spec().evaluate().model_directory()),
        quantize ? FormatBudget(job.spec().quantize().budget()) : "evaluation",
        StateName(job.state()),
        PhaseName(job.phase()),
        DoneText(job),
        AgeText(job.create_time()),
        LogSafe(job.has_failure() ? job.failure().reason() : job.queue_detail())};
    if (IsWide(invocation)) AddWide(job, cells);
    table.AddRow(std::move(cells));
  }
  return table.Text();
}

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_RETURN_IF_ERROR(Filter(invocation.flags).status());
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  return PrintOrWatch(invocation, session.get(), [&]() -> absl::StatusOr<Shown> {
    LWQ_ASSIGN_OR_RETURN(v1::ListJobsResponse jobs, List(session->client(), invocation.flags));
    LWQ_ASSIGN_OR_RETURN(std::string text, TableText(invocation, jobs));
    for (v1::Job& job : *jobs.mutable_jobs()) ClearTimes(&job);
    return Shown{std::move(text), CanonicalBytes(jobs)};
  });
}

}  // namespace

extern const CommandDef kJobsCommand;
constinit const CommandDef kJobsCommand = {
    .name = "jobs",
    .arguments = "",
    .summary = "Lists jobs, newest first.",
    .examples = "  lwqctl jobs\n  lwqctl jobs --state running --json\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client
