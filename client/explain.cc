#include "client/explain.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/reasons.h"
#include "client/client.h"
#include "client/progress.h"
#include "client/size_text.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

constexpr size_t kMostListed = 8;

std::string NameOf(const v1::TaskStatus& task) {
  return absl::StrCat(TaskName(task.kind(), task.layer()), " (task ",
                      LogSafe(task.task()).substr(0, 12), ")");
}

// Lines of one kind, of which a few are enough.
class Section {
 public:
  explicit Section(std::string title) : title_(std::move(title)) {}
  void Add(std::string line) { lines_.push_back(std::move(line)); }
  std::string Text() const {
    if (lines_.empty()) return "";
    std::string text = absl::StrCat(title_, "\n");
    for (size_t i = 0; i < std::min(lines_.size(), kMostListed); ++i) {
      absl::StrAppend(&text, "  ", lines_[i], "\n");
    }
    if (lines_.size() > kMostListed) {
      absl::StrAppend(&text, "  and ", lines_.size() - kMostListed, " more\n");
    }
    return text;
  }

 private:
  const std::string title_;
  std::vector<std::string> lines_;
};

std::string Headline(const v1::Job& job) {
  std::string text = absl::StrCat(LogSafe(job.name()), " is ", StateName(job.state()));
  const v1::Progress& progress = job.progress();
  if (progress.tasks_total() > 0) {
    const bool whole = HasFraction(job.state());
    if (whole) absl::StrAppendFormat(&text, ", %.0f%% done", 100 * progress.fraction());
    absl::StrAppendFormat(&text, ", %d of %d tasks%s (%d of them from the cache)",
                          progress.tasks_done(), progress.tasks_total(), whole ? "" : " were done",
                          progress.tasks_cached());
  }
  absl::StrAppend(&text, "\n");
  if (progress.has_remaining_seconds()) {
    absl::StrAppend(&text, FormatEstimate(progress.remaining_seconds()),
                    " left, with the workers there are now\n");
  }
  if (!job.queue_detail().empty()) {
    absl::StrAppend(&text, "nothing of it runs: ", LogSafe(job.queue_detail()), "\n");
  }
  return text;
}

std::string FailureText(const v1::TaskStatus& task) {
  std::string text = NameOf(task);
  if (task.attempt() > 0) absl::StrAppend(&text, ", failed ", task.attempt(), " times");
  if (task.lost() > 0) absl::StrAppend(&text, ", its worker lost ", task.lost(), " times");
  if (task.has_failure()) {
    absl::StrAppend(&text, ", last by ", LogSafe(task.failure().reason()), ": ",
                    LogSafe(task.failure().message()));
    if (!task.failure().worker().empty()) {
      absl::StrAppend(&text, " (worker ", LogSafe(task.failure().worker()), ")");
    }
  }
  return text;
}

// Of a job that has ended nothing runs or waits, whatever the last that was heard of a task.
std::string TasksText(const std::vector<v1::TaskStatus>& tasks, bool ended) {
  Section running("runs now:"), ready("ready to run:"), trouble("had trouble:");
  std::map<std::string, int> blocked;
  for (const v1::TaskStatus& task : tasks) {
    if (!ended && task.state() == "LEASED") {
      v1::RunningTask now;
      now.set_kind(task.kind());
      now.set_layer(task.layer());
      now.set_worker(task.worker());
      now.set_seconds(task.running_seconds());
      now.set_fraction(task.fraction());
      now.set_waits_for(task.detail());
      const bool gets_on = task.detail().empty() && !task.current().empty();
      running.Add(absl::StrCat(task.kind() == "plan" ? "plan on the server" : RunningText(now),
                               gets_on ? ": " : "", gets_on ? LogSafe(task.current()) : ""));
    }
    if (!ended && task.state() == "READY") {
      ready.Add(
          absl::StrCat(NameOf(task), task.detail().empty() ? "" : ": ", LogSafe(task.detail())));
    }
    if (!ended && task.state() == "BLOCKED") ++blocked[LogSafe(task.kind())];
    if (task.state() == "FAILED" || task.attempt() > 0 || task.lost() > 0) {
      trouble.Add(FailureText(task));
    }
  }
  std::string text = absl::StrCat(running.Text(), ready.Text());
  if (!blocked.empty()) {
    absl::StrAppend(&text, "waits for others:\n ");
    for (const auto& [kind, count] : blocked) absl::StrAppend(&text, " ", count, " ", kind);
    absl::StrAppend(&text, "\n");
  }
  return absl::StrCat(text, trouble.Text());
}

bool AnyStands(const v1::Job& job) {
  return std::any_of(job.progress().running().begin(), job.progress().running().end(),
                     [](const v1::RunningTask& task) { return !task.waits_for().empty(); });
}

// The next command, by how the job stands.
std::string NextText(const v1::Job& job) {
  const std::string id = LogSafe(job.name().substr(job.name().find('/') + 1));
  switch (job.state()) {
    case v1::Job::FAILED: {
      const absl::StatusCode code = static_cast<absl::StatusCode>(job.failure().code());
      const Reason& reason = ReasonLine(job.failure().reason(), code);
      // A retry asks the same of the same files: what was sent stays as it was.
      const bool asked_wrong = reason.blame == Blame::kUser || reason.blame == Blame::kModel;
      return absl::StrCat(
          "failed by ", LogSafe(job.failure().reason()), ": ", LogSafe(job.failure().message()),
          "\nnext: ", reason.help,
          asked_wrong ? absl::StrCat("; then submit it anew, since lwqctl retry ", id,
                                     " would do the same again\n")
                      : absl::StrCat("; then lwqctl retry ", id, " goes on where it was\n"));
    }
    case v1::Job::CANCELLED:
      return absl::StrCat("next: lwqctl retry ", id, " goes on where it was\n");
    case v1::Job::SUCCEEDED:
      return job.artifact().empty()
                 ? absl::StrCat("next: lwqctl show ", id, "\n")
                 : absl::StrCat("next: lwqctl artifact get jobs/", id, " --out DIR\n");
    case v1::Job::CANCELLING:
      return "next: nothing; it ends when its running tasks have given up\n";
    default:
      // Its tenant's quota, not the workers, is what it waits for (WhyJobWaits).
      if (absl::StartsWith(job.queue_detail(), "held: ")) {
        return "next: nothing; it begins as others of its tenant end: lwqctl jobs --state "
               "running\n";
      }
      if (!job.queue_detail().empty() || AnyStands(job)) {
        return absl::StrCat("next: lwqctl workers, or lwqctl doctor\n");
      }
      return absl::StrCat("next: lwqctl watch ", id, ", or lwqctl logs ", id, " --follow\n");
  }
}

}  // namespace

std::string ExplainJob(const v1::Job& job, const std::vector<v1::TaskStatus>& tasks) {
  return absl::StrCat(Headline(job), TasksText(tasks, IsTerminal(job.state())), NextText(job));
}

}  // namespace lwq::client
