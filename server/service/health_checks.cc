#include "server/service/health_checks.h"

#include <sys/statvfs.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/hash.h"
#include "server/service/worker_service.h"

namespace lwq {
namespace {

constexpr double kGiB = 1 << 30;
// A model's artifacts and blobs are of this order; less is soon used up.
constexpr double kLittleRoom = 5 * kGiB, kNoRoom = 0.25 * kGiB;
constexpr absl::Duration kSlow = absl::Seconds(1);

v1::HealthCheck Check(absl::string_view name, v1::HealthCheck::State state, std::string detail,
                      absl::string_view advice) {
  v1::HealthCheck check;
  check.set_name(std::string(name));
  check.set_state(state);
  check.set_detail(std::move(detail));
  if (state != v1::HealthCheck::OK) check.set_advice(std::string(advice));
  return check;
}

// What `look` found and how long it took.
template <typename Look>
v1::HealthCheck Timed(Scheduler& scheduler, absl::string_view name, absl::string_view what,
                      const Look& look, absl::string_view advice) {
  const absl::Duration start = scheduler.clock().Steady();
  const absl::Status status = look();
  const absl::Duration took = scheduler.clock().Steady() - start;
  if (!status.ok()) {
    return Check(name, v1::HealthCheck::FAIL, absl::StrCat(what, ": ", status.message()), advice);
  }
  const bool slow = took > kSlow;
  return Check(name, slow ? v1::HealthCheck::WARN : v1::HealthCheck::OK,
               absl::StrFormat("%s, answers in %.0f ms", what, absl::ToDoubleMilliseconds(took)),
               "look at the load of what it runs on");
}

}  // namespace

v1::HealthCheck DiskCheck(const std::string& directory, double free_bytes, double total_bytes) {
  const v1::HealthCheck::State state = free_bytes < kNoRoom       ? v1::HealthCheck::FAIL
                                       : free_bytes < kLittleRoom ? v1::HealthCheck::WARN
                                                                  : v1::HealthCheck::OK;
  return Check("disk", state,
               absl::StrFormat("%.1f GiB of %.1f GiB free under %s", free_bytes / kGiB,
                               total_bytes / kGiB, directory),
               "delete what is not needed (lwqctl delete, lwqctl gc) or give it more room");
}

v1::HealthCheck WorkersCheck(const std::vector<v1::Worker>& workers, const std::string& build) {
  int live = 0, cordoned = 0;
  std::set<std::string> silent, other_builds;
  for (const v1::Worker& worker : workers) {
    if (worker.state() == v1::Worker::LEFT) continue;
    const std::string id = worker.name().substr(worker.name().find('/') + 1);
    const bool is_silent =
        worker.state() == v1::Worker::LOST || worker.state() == v1::Worker::SILENT;
    // One that was drained may well be away.
    if (is_silent && !worker.cordoned()) silent.insert(id);
    if (worker.cordoned()) ++cordoned;
    if (is_silent) continue;
    if (!worker.cordoned()) ++live;
    if (worker.registration().build() != build) other_builds.insert(id);
  }
  std::string detail = absl::StrCat(live, " ready or busy");
  if (cordoned > 0) absl::StrAppend(&detail, ", ", cordoned, " cordoned");
  if (!silent.empty()) absl::StrAppend(&detail, ", not heard of: ", absl::StrJoin(silent, ", "));
  if (live == 0) {
    return Check("workers", v1::HealthCheck::FAIL, detail,
                 cordoned > 0 ? "lwqctl worker uncordon WORKER"
                              : "start one: lwq-worker --server ADDRESS --work-dir DIR");
  }
  if (!other_builds.empty()) {
    absl::StrAppend(&detail,
                    "; of another version than the server: ", absl::StrJoin(other_builds, ", "));
    return Check("workers", v1::HealthCheck::WARN, detail, "install one version everywhere");
  }
  return Check("workers", silent.empty() ? v1::HealthCheck::OK : v1::HealthCheck::WARN, detail,
               "look at the log of the one that is silent, and start it anew");
}

std::vector<v1::HealthCheck> CheckHealth(Scheduler& scheduler, const std::string& data_directory) {
  std::vector<v1::HealthCheck> checks;
  checks.push_back(Timed(
      scheduler, "store", scheduler.store().name(),
      [&] {
        const absl::Status status = scheduler.store().Get(Table::kJobs, "jobs/none").status();
        return absl::IsNotFound(status) ? absl::OkStatus() : status;
      },
      "look at the store, and at the server's log"));
  checks.push_back(Timed(
      scheduler, "blobs", absl::StrCat(scheduler.blobs().total_count(), " blobs"),
      [&] {
        return scheduler.blobs().Has({Sha256Hex("none"), 4}).status();
      },
      "look at the blob store, and at the server's log"));
  struct statvfs disk;
  if (!data_directory.empty() && ::statvfs(data_directory.c_str(), &disk) == 0) {
    const auto unit = static_cast<double>(disk.f_frsize);
    checks.push_back(DiskCheck(data_directory, unit * static_cast<double>(disk.f_bavail),
                               unit * static_cast<double>(disk.f_blocks)));
  }
  std::vector<v1::Worker> workers;
  scheduler.View([&](const DispatchState& state) { workers = WorkersOf(state, scheduler.Now()); });
  checks.push_back(WorkersCheck(workers, LWQ_VERSION));
  return checks;
}

}  // namespace lwq
