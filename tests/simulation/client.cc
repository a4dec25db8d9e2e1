#include "tests/simulation/client.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/dispatch/dispatch_state.h"

namespace lwq::simulation {

template <typename Request, typename Response>
void Client::Call(Network::Method<Request, Response> method, const Request& request,
                  Network::Answer<Response> answer) {
  auto as_tenant = [tenant = tenant_, method = std::move(method)](
                       SimServer& server, grpc::CallbackServerContext* context,
                       const Request* asked, Response* response) {
    server.CallAs(tenant);
    auto* reactor = method(server, context, asked, response);
    server.CallAs("");
    return reactor;
  };
  network_.Call<Request, Response>(
      peer_, machine_, std::move(as_tenant), request, absl::Seconds(30),
      [this, answer](const absl::Status& status, const Response& response) {
        if (IsRetryable(status)) machine_ = (machine_ + 1) % network_.num_machines();
        answer(status, response);
      });
}

std::string Client::NewRequestId() {
  const std::string hex = world_.Hex(16);
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20, 12));
}

void Client::Start() {
  request_.set_request_id(NewRequestId());
  // A name of the server's own making is random, and runs would differ.
  request_.set_job_id(id_);
  Submit();
  world_.After(world_.Between(absl::Seconds(1), absl::Seconds(60)), [this] { Meddle(); });
}

void Client::Submit() {
  Call<v1::CreateJobRequest, v1::Job>(
      [](SimServer& server, auto* context, auto* request, auto* job) {
        return server.jobs().CreateJob(context, request, job);
      },
      request_,
      [this](const absl::Status& status, const v1::Job& job) {
        if (status.ok()) {
          world_.Note(absl::StrCat("client ", id_, " has ", job.name()));
          acknowledged_ = true;
          job_ = job.name();
          promises_.JobAcknowledged(request_.request_id(), job.name());
          Watch();
          return;
        }
        const std::string reason = ReasonOf(status);
        if (!IsRetryable(status) && reason != "STORE_FULL" && reason != "METHOD_UNKNOWN" &&
            reason != "SCORER_UNKNOWN") {
          world_.Break("I1", absl::StrCat("submitting ", id_, ": ", reason, " ", status.message()));
        }
        // Before a worker has registered there is no method.
        world_.After(world_.Between(absl::Milliseconds(100), absl::Seconds(3)),
                     [this] { Submit(); });
      });
}

void Client::Watch() {
  v1::WatchJobRequest request;
  request.set_name(job_);
  request.set_resume_seq(seen_);
  from_first_ = seen_ == 0 && world_.Chance(0.5);
  request.set_from_first_event(from_first_);
  at_ = seen_ > 0 ? seen_ : from_first_ ? 0 : -1;
  network_.Watch(
      peer_, machine_, request, [this](const v1::JobEvent& event) { Heard(event); },
      [this](const absl::Status& status) { Ended(status); }, habits_.slowest_reader);
}

void Client::Heard(const v1::JobEvent& event) {
  const auto wrong = [&](absl::string_view what) {
    world_.Break("I5", absl::StrCat("the watcher of ", job_, " is at ", at_, " and gets ",
                                    event.seq(), ", ", what));
  };
  if (event.has_snapshot()) {
    if (at_ != -1) return wrong("a snapshot");
    at_ = event.seq();
    state_ = event.snapshot().state();
  } else if (event.has_state() || event.has_task()) {
    if (at_ < 0 || event.seq() != at_ + 1) return wrong("an event");
    at_ = event.seq();
    if (event.has_state()) state_ = event.state().to();
  } else if (event.seq() != at_) {
    return wrong("what happened between two events");
  } else if (event.has_progress() && IsTerminal(state_)) {
    return wrong("progress after the end");
  }
  seen_ = at_;
}

void Client::Ended(const absl::Status& status) {
  if (status.ok()) {
    if (!IsTerminal(state_)) {
      world_.Break("I5", absl::StrCat("the watcher of ", job_, " is sent away at ", at_, " in ",
                                      v1::Job::State_Name(state_)));
      return;
    }
    world_.Note(absl::StrCat(job_, " is ", v1::Job::State_Name(state_)));
    if (state_ != v1::Job::SUCCEEDED && !calm_ && world_.Chance(habits_.retries)) return Retry();
    content_ = true;
    if (world_.Chance(habits_.deletes)) {
      promises_.DeletionAsked(job_);
      Delete(NewRequestId());
    }
    return;
  }
  const std::string reason = ReasonOf(status);
  if (!IsRetryable(status)) {
    world_.Break("I5", absl::StrCat("watching ", job_, " from ", seen_, ": ", reason, " ",
                                    status.message()));
    return;
  }
  if (reason == "SLOW_CONSUMER") world_.Count("slow watcher is sent away");
  machine_ = (machine_ + 1) % network_.num_machines();
  world_.After(world_.Between(absl::Milliseconds(100), absl::Seconds(3)), [this] { Watch(); });
}

void Client::Retry() {
  v1::RetryJobRequest request;
  request.set_name(job_);
  request.set_request_id(NewRequestId());
  world_.Count("job is retried");
  Call<v1::RetryJobRequest, v1::Job>(
      [](SimServer& server, auto* context, auto* asked, auto* job) {
        return server.jobs().RetryJob(context, asked, job);
      },
      request,
      [this](const absl::Status&, const v1::Job&) {
        // Whether it was or not, the stream says; it may have been and the
        // answer lost.
        Watch();
      });
}

void Client::Delete(const std::string& request_id) {
  v1::DeleteJobRequest request;
  request.set_name(job_);
  request.set_request_id(request_id);
  Call<v1::DeleteJobRequest, v1::DeleteJobResponse>(
      [](SimServer& server, auto* context, auto* asked, auto* response) {
        return server.jobs().DeleteJob(context, asked, response);
      },
      request,
      [this, request_id](const absl::Status& status, const v1::DeleteJobResponse&) {
        if (status.ok()) {
          world_.Count("job is deleted");
          if (promises_.jobs().count(job_) > 0) {
            world_.Break("delete", absl::StrCat(job_, " is said to be deleted and is there"));
          }
        } else if (IsRetryable(status) || ReasonOf(status) == "STORE_FULL") {
          world_.After(absl::Seconds(1), [this, request_id] { Delete(request_id); });
        } else {
          world_.Break("delete", absl::StrCat(job_, ": ", ReasonOf(status)));
        }
      });
}

void Client::Meddle() {
  if (content_ || calm_) return;
  world_.After(world_.Between(absl::Seconds(5), absl::Seconds(60)), [this] { Meddle(); });
  if (!acknowledged_) return;
  if (world_.Chance(habits_.cancels)) {
    world_.Count("job is cancelled");
    v1::CancelJobRequest request;
    request.set_name(job_);
    request.set_request_id(NewRequestId());
    Call<v1::CancelJobRequest, v1::Job>(
        [](SimServer& server, auto* context, auto* asked, auto* job) {
          return server.jobs().CancelJob(context, asked, job);
        },
        request, [](const absl::Status&, const v1::Job&) {});
  }
  if (world_.Chance(habits_.updates)) {
    world_.Count("job is updated");
    v1::UpdateJobRequest request;
    request.set_name(job_);
    request.set_priority(world_.Chance(0.5) ? v1::Job::HIGH : v1::Job::LOW);
    (*request.mutable_labels())[absl::StrCat("l", world_.Below(3))] = "x";
    request.set_request_id(NewRequestId());
    Call<v1::UpdateJobRequest, v1::Job>(
        [](SimServer& server, auto* context, auto* asked, auto* job) {
          return server.jobs().UpdateJob(context, asked, job);
        },
        request, [](const absl::Status&, const v1::Job&) {});
  }
}

}  // namespace lwq::simulation
