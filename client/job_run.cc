#include "client/job_run.h"

#include <filesystem>
#include <system_error>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/errors.h"
#include "client/watch.h"
#include "records/canonical.h"

namespace lwq::client {
namespace {

constexpr int kWaitSeconds = 1;  // short, so that Ctrl-C is heard

// Without links where it is on this machine; else the server says whether it is on its own.
std::string AbsoluteDirectory(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(directory, error);
  return error ? directory : path.string();
}

// Also true where nobody can say.
bool AnyWorker(Client* client) {
  const absl::StatusOr<v1::ListWorkersResponse> found = client->ListWorkers({});
  if (!found.ok()) return true;
  return absl::c_any_of(found->workers(), [](const v1::Worker& worker) {
    return worker.state() == v1::Worker::READY || worker.state() == v1::Worker::BUSY;
  });
}

// The spec of a new job as this server would run it: with what it fills in.
absl::StatusOr<v1::JobSpec> FilledSpec(Client* client, const v1::CreateJobRequest& request) {
  v1::CreateJobRequest dry = request;
  dry.set_validate_only(true);
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, client->CreateJob(std::move(dry)));
  return job.spec();
}

}  // namespace

absl::StatusOr<v1::Model> RegisterModel(Session* session, const std::string& directory,
                                        const std::function<void(const std::string&)>& note,
                                        const std::string& model_id) {
  const std::string absolute = AbsoluteDirectory(directory);
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
  v1::CreateJobRequest request;
  *request.mutable_job()->mutable_spec() = spec;
  (*request.mutable_job()->mutable_labels())[kRequestLabel] = digest;
  if (!reuse) return client->CreateJob(std::move(request));
  v1::ListJobsRequest same;
  same.set_label_key(kRequestLabel);
  same.set_label_value(digest);
  LWQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse found, client->ListJobs(same));
  std::string wanted;  // asked for once a job is there that it can be held against
  for (const v1::Job& job : found.jobs()) {
    if (job.state() != v1::Job::QUEUED && job.state() != v1::Job::RUNNING &&
        job.state() != v1::Job::SUCCEEDED) {
      continue;
    }
    // Whoever may submit jobs can give them any label, so the label alone proves nothing.
    if (wanted.empty()) {
      LWQ_ASSIGN_OR_RETURN(const v1::JobSpec filled, FilledSpec(client, request));
      wanted = CanonicalBytes(filled);
    }
    if (CanonicalBytes(job.spec()) == wanted) return job;
  }
  return client->CreateJob(std::move(request));
}

void CancelLeftovers(Client* client, const std::string& run_directory, const std::string& digest) {
  for (const v1::Job::State state : {v1::Job::QUEUED, v1::Job::RUNNING}) {
    v1::ListJobsRequest request;
    request.set_state(state);
    const absl::StatusOr<v1::ListJobsResponse> found = client->ListJobs(request);
    if (!found.ok()) return;
    for (const v1::Job& job : found->jobs()) {
      const auto label = job.labels().find(kRequestLabel);
      if (label == job.labels().end() || label->second == digest) continue;
      UnlessFollowed(run_directory, label->second,
                     [&] { client->CancelJob(job.name()).status().IgnoreError(); });
    }
  }
}

absl::StatusOr<v1::Job> FollowJob(Session* session, const std::string& name, JobDisplay* display,
                                  Following* following) {
  const bool own = session->embedded() != nullptr && !session->embedded()->is_kept();
  const absl::StatusOr<v1::Job> job = WatchJob(
      session->client(), name,
      [&](const v1::JobEvent& event) {
        display->OnEvent(event);
        return absl::OkStatus();
      },
      [&](const absl::Status&) { display->Note("connection to the server lost; reconnecting"); });
  display->Finish();
  if (!job.ok() && IsInterrupted(job.status())) {
    const auto cancel = [&] { session->client()->CancelJob(name).status().IgnoreError(); };
    if (own && following == nullptr) {
      cancel();
    } else if (own && !following->End(cancel)) {
      display->Note(absl::StrCat(name, " goes on: another command may wait for it"));
    } else if (!own) {
      display->Note(absl::StrCat(name, " goes on; lwqctl cancel ", Basename(name), " stops it"));
    }
  }
  return job;
}

int ReportFailedJob(const v1::Job& job, std::ostream* err) {
  const absl::Status why = job.state() == v1::Job::CANCELLED
                               ? Failure(reasons::kCancelled, "somebody cancelled the job")
                               : StatusOfFailure(job.failure());
  *err << ErrorText(absl::StrCat(job.name(), " ended as ", StateName(job.state())), why);
  return kExitJobFailed;
}

}  // namespace lwq::client
