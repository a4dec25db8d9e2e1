#include "client/job_run.h"

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/errors.h"
#include "client/file_lock.h"
#include "client/watch.h"
#include "records/canonical.h"

namespace lwq::client {
namespace {

constexpr int kWaitSeconds = 1;  // short, so that Ctrl-C is heard

absl::StatusOr<std::string> AbsoluteDirectory(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  if (error || !IsDirectory(path.string())) {
    return Failure(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
                   absl::StrCat("there is no model directory ", LogSafe(directory)));
  }
  return path.string();
}

// Also true where nobody can say.
bool AnyWorker(Client* client) {
  const absl::StatusOr<v1::ListWorkersResponse> found = client->ListWorkers({});
  if (!found.ok()) return true;
  return absl::c_any_of(found->workers(),
                        [](const v1::Worker& w) { return w.state() != v1::Worker::LOST; });
}

// A job of an own server that this process waits for. Others may wait for the same one: a second
// command that asks for the same finds the first one's job.
class Following {
 public:
  Following(const EmbeddedPaths& paths, const std::string& job)
      : path_(JoinPath(paths.run, absl::StrCat(Basename(job), ".followed"))),
        lock_(FileLock::Acquire(path_, FileLock::Mode::kShared, absl::Seconds(1))) {}
  ~Following() { End(); }
  Following(const Following&) = delete;
  Following& operator=(const Following&) = delete;

  // Whether nobody else waits for it now. Of several that end at once the last one is told so.
  bool End() {
    if (!lock_.ok()) return true;
    lock_ = absl::UnavailableError("ended");
    const bool alone =
        FileLock::Acquire(path_, FileLock::Mode::kExclusive, absl::ZeroDuration()).ok();
    if (alone) ::unlink(path_.c_str());
    return alone;
  }

 private:
  const std::string path_;
  absl::StatusOr<std::unique_ptr<FileLock>> lock_;
};

}  // namespace

absl::StatusOr<v1::Model> RegisterModel(Session* session, const std::string& directory,
                                        const std::function<void(const std::string&)>& note,
                                        const std::string& model_id) {
  LWQ_ASSIGN_OR_RETURN(const std::string absolute, AbsoluteDirectory(directory));
  v1::CreateModelRequest request;
  request.set_model_id(model_id);
  request.mutable_source()->set_directory(absolute);
  LWQ_ASSIGN_OR_RETURN(v1::Model model, session->client()->CreateModel(request));
  if (model.state() == v1::Model::VERIFYING && !AnyWorker(session->client())) {
    note("no worker is connected: the model is looked at when one comes");
  }
  while (model.state() == v1::Model::VERIFYING) {
    LWQ_RETURN_IF_ERROR(session->MayGoOn());
    v1::GetModelRequest wait;
    wait.set_name(model.name());
    wait.set_wait_seconds(kWaitSeconds);
    LWQ_ASSIGN_OR_RETURN(model, session->client()->GetModel(wait));
  }
  if (model.state() == v1::Model::ACTIVE) return model;
  return Annotate(StatusOfFailure(model.failure()), "the model in ", absolute, " was rejected");
}

std::string RequestDigest(const v1::JobSpec& spec, const std::string& model_digest) {
  return Sha256Hex(absl::StrCat(model_digest, "\n", CanonicalBytes(spec)));
}

absl::StatusOr<v1::Job> FindOrSubmit(Client* client, const v1::JobSpec& spec,
                                     const std::string& digest, bool reuse) {
  if (reuse) {
    v1::ListJobsRequest request;
    request.set_label_key(kRequestLabel);
    request.set_label_value(digest);
    LWQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse found, client->ListJobs(request));
    for (const v1::Job& job : found.jobs()) {
      if (job.state() == v1::Job::QUEUED || job.state() == v1::Job::RUNNING ||
          job.state() == v1::Job::SUCCEEDED) {
        return job;
      }
    }
  }
  v1::CreateJobRequest request;
  *request.mutable_job()->mutable_spec() = spec;
  (*request.mutable_job()->mutable_labels())[kRequestLabel] = digest;
  return client->CreateJob(std::move(request));
}

void CancelLeftovers(Client* client, const std::string& digest) {
  for (const v1::Job::State state : {v1::Job::QUEUED, v1::Job::RUNNING}) {
    v1::ListJobsRequest request;
    request.set_state(state);
    const absl::StatusOr<v1::ListJobsResponse> found = client->ListJobs(request);
    if (!found.ok()) return;
    for (const v1::Job& job : found->jobs()) {
      const auto label = job.labels().find(kRequestLabel);
      if (label == job.labels().end() || label->second == digest) continue;
      client->CancelJob(job.name()).status().IgnoreError();
    }
  }
}

absl::StatusOr<v1::Job> FollowJob(Session* session, const std::string& name, JobDisplay* display) {
  const bool own = session->embedded() != nullptr && !session->embedded()->is_kept();
  std::optional<Following> following;
  if (own) following.emplace(session->embedded()->paths(), name);
  const absl::StatusOr<v1::Job> job = WatchJob(
      session->client(), name,
      [&](const v1::JobEvent& event) {
        display->OnEvent(event);
        return absl::OkStatus();
      },
      [&](const absl::Status&) { display->Note("connection to the server lost; reconnecting"); });
  display->Finish();
  if (!job.ok() && IsInterrupted(job.status())) {
    if (own && following->End()) {
      session->client()->CancelJob(name).status().IgnoreError();
    } else if (own) {
      display->Note(absl::StrCat(name, " goes on for another command that waits for it"));
    } else {
      display->Note(absl::StrCat(name, " goes on; lwqctl cancel ", Basename(name), " stops it"));
    }
  }
  return job;
}

int ReportFailedJob(const v1::Job& job, std::ostream* err) {
  const absl::Status why =
      job.state() == v1::Job::CANCELLED
          ? Failure(absl::StatusCode::kCancelled, "CANCELLED", "somebody cancelled the job")
          : StatusOfFailure(job.failure());
  *err << ErrorText(absl::StrCat(job.name(), " ended as ", StateName(job.state())), why);
  return kExitJobFailed;
}

}  // namespace lwq::client
