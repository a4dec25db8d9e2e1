#include "client/watch.h"

#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq::client {
namespace {

// The server sends a bookmark every 15 s at least; three missed ones are a dead stream.
constexpr absl::Duration kIdleLimit = absl::Seconds(45);

bool IsDurable(const v1::JobEvent& event) {
  return event.event_case() == v1::JobEvent::kState || event.event_case() == v1::JobEvent::kTask;
}

}  // namespace

absl::StatusOr<v1::Job> WatchJob(Client* client, const std::string& name,
                                 const std::function<absl::Status(const v1::JobEvent&)>& on_event,
                                 const std::function<void(const absl::Status&)>& on_reconnect,
                                 WatchFrom from) {
  int64_t seen = from.seq;
  bool told = false;
  RetryLoop retry(client->options());
  const auto take = [&](const v1::JobEvent& event) -> absl::Status {
    retry.Reset();
    told = false;
    if (IsDurable(event) && event.seq() <= seen) return absl::OkStatus();
    if (event.seq() > seen) seen = event.seq();
    return on_event(event);
  };
  while (true) {
    v1::WatchJobRequest request;
    request.set_name(name);
    request.set_resume_seq(seen);
    request.set_from_first_event(from.first_event);
    absl::Status ended = client->StreamJobEvents(request, kIdleLimit, take);
    if (ended.ok()) {
      LWQ_ASSIGN_OR_RETURN(v1::Job job, client->GetJob(name));
      if (IsTerminal(job.state())) return job;
      ended = absl::UnavailableError("the server ended the stream before the job's end");
    } else if (absl::IsOutOfRange(ended) && seen > 0) {
      // The store was put back to an earlier state: start again from a snapshot.
      seen = 0;
      continue;
    }
    const std::string reason = ReasonOf(ended);
    if (reason == reasons::kSlowConsumer.name || reason == reasons::kDraining.name) {
      ended = absl::UnavailableError(ended.message());
    }
    if (absl::IsUnavailable(ended) && on_reconnect && !told) {
      told = true;
      on_reconnect(ended);
    }
    LWQ_RETURN_IF_ERROR(Annotate(retry.BeforeRetry(ended), "watching ", name));
  }
}

}  // namespace lwq::client
