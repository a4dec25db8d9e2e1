#include "client/top.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/log.h"
#include "client/progress.h"
#include "client/size_text.h"
#include "client/table.h"
#include "client/work_text.h"

namespace lwq::client {
namespace {

std::string ShortId(const std::string& name) { return LogSafe(name.substr(name.rfind('/') + 1)); }

std::string WorkersText(const std::vector<v1::Worker>& workers) {
  Table table({"WORKER", "STATE", "TASK", ">FOR", ">DONE", "JOB", ">TASKS"});
  for (const v1::Worker& worker : workers) {
    std::string task, time, done, job;
    if (worker.running_size() > 0) {
      const v1::RunningTask& first = worker.running(0);
      task = TaskName(first.kind(), first.layer());
      time = FormatSeconds(first.seconds());
      done = absl::StrFormat("%.0f%%", 100 * first.fraction());
      if (first.jobs_size() > 0) job = ShortId(first.jobs(0));
      if (first.jobs_size() > 1) absl::StrAppend(&job, " and ", first.jobs_size() - 1, " more");
    }
    table.AddRow({ShortId(worker.name()), WorkerStateText(worker), task, time, done, job,
                  absl::StrCat(worker.tasks_done())});
  }
  return table.Text();
}

std::string JobsText(const std::vector<v1::Job>& jobs) {
  Table table({"JOB", "STATE", "PHASE", ">DONE", ">TASKS", "LEFT", "NOTE"});
  for (const v1::Job& job : jobs) {
    const v1::Progress& progress = job.progress();
    table.AddRow(
        {ShortId(job.name()), StateName(job.state()), PhaseName(job.phase()),
         absl::StrFormat("%.0f%%", 100 * progress.fraction()),
         absl::StrCat(progress.tasks_done(), "/", progress.tasks_total()),
         progress.has_remaining_seconds() ? FormatEstimate(progress.remaining_seconds()) : "-",
         LogSafe(job.queue_detail())});
  }
  return table.Text();
}

}  // namespace

std::vector<std::string> TopLines(const std::vector<v1::Worker>& workers,
                                  const std::vector<v1::Job>& jobs, size_t width, size_t height) {
  int live = 0, busy = 0;
  for (const v1::Worker& worker : workers) {
    const bool silent = worker.state() == v1::Worker::LOST ||
                        worker.state() == v1::Worker::SILENT || worker.state() == v1::Worker::LEFT;
    if (!silent) ++live;
    if (worker.state() == v1::Worker::BUSY) ++busy;
  }
  std::string text = absl::StrCat(live, live == 1 ? " worker, " : " workers, ", busy, " busy; ",
                                  jobs.size(), jobs.size() == 1 ? " job" : " jobs", " active\n\n",
                                  WorkersText(workers), "\n", JobsText(jobs));
  if (!text.empty() && text.back() == '\n') text.pop_back();
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (height > 0 && lines.size() > height) lines.resize(height);
  for (std::string& line : lines) {
    if (width > 3 && line.size() > width) line = absl::StrCat(line.substr(0, width - 3), "...");
  }
  return lines;
}

}  // namespace lwq::client
