// One watcher of a job: events from the store in order, a merged progress between them, bookmarks
// while nothing happens. Wake-ups are hints; what is sent is always read.
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/dispatch/progress.h"
#include "server/service/job_service.h"
#include "server/service/record_writes.h"
#include "server/service/tenancy.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr size_t kPage = 200;
constexpr absl::Duration kBookmarkInterval = absl::Seconds(10);
constexpr absl::Duration kSlowConsumer = absl::Seconds(30);

class WatchCall final : public grpc::ServerWriteReactor<v1::JobEvent>, public LongCall {
 public:
  WatchCall(ServiceEnv& env, grpc::CallbackServerContext* context,
            const v1::WatchJobRequest& request)
      : env_(env),
        name_(request.name()),
        record_(env, context, "JobService", "WatchJob", this),
        seq_(request.resume_seq()),
        from_snapshot_(request.resume_seq() <= 0 && !request.from_first_event()),
        last_sent_(Now()),
        write_started_(last_sent_) {}

  void Begin() {
    if (absl::Status admitted = record_.Admit(); !admitted.ok()) return End(admitted);
    if (env_.scheduler->draining) return End(DrainingError());
    job_hint_ = env_.scheduler->hints().Add(name_, [this] { Wake(); });
    progress_hint_ = env_.scheduler->hints().Add(ProgressTopic(name_), [this] { Moved(); });
    tick_hint_ = env_.scheduler->hints().Add(kTickTopic, [this] { Tick(); });
    Wake();
  }

  void Drain() override { End(DrainingError()); }
  void OnCancel() override { End(absl::CancelledError("the watcher has gone")); }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the watcher has gone"));
    bool more = false;
    {
      MutexLock lock(&mu_);
      writing_ = false;
      queue_.pop_front();
      more = more_ && queue_.size() < kPage / 2;
      more_ = more_ && !more;
    }
    if (more) Wake();
    WriteNext();
  }

  void OnDone() override {
    // Both wait for a hint that is running; after them no other thread but a pump knows this
    // object.
    env_.scheduler->hints().Remove(job_hint_);
    env_.scheduler->hints().Remove(progress_hint_);
    env_.scheduler->hints().Remove(tick_hint_);
    bool idle = false;
    {
      MutexLock lock(&mu_);
      done_ = true;
      idle = !pumping_;
    }
    if (idle) delete this;
  }

 private:
  // Asks for a pump; one runs at a time.
  void Wake() {
    {
      MutexLock lock(&mu_);
      if (done_) return;
      again_ = true;
      if (pumping_) return;
      pumping_ = true;
    }
    if (!env_.watch->PostAlways([this] { Pump(); })) {
      MutexLock lock(&mu_);
      pumping_ = false;
    }
  }

  // A task told how far it is: the next tick is soon enough to tell.
  void Moved() {
    MutexLock lock(&mu_);
    moved_ = true;
  }

  // Reads nothing unless something was hinted at, or a bookmark is due.
  void Tick() {
    if (absl::Status stays = record_.MayStay(); !stays.ok()) return End(stays);
    const absl::Duration now = Now();
    bool slow = false;
    bool look = false;
    {
      MutexLock lock(&mu_);
      slow = writing_ && now - write_started_ > kSlowConsumer;
      const bool quiet = !writing_ && now - last_sent_ > kBookmarkInterval;
      wants_bookmark_ = wants_bookmark_ || quiet;
      look = std::exchange(moved_, false) || quiet;
    }
    if (slow) {
      End(Failure(reasons::kSlowConsumer,
                  "no event was read for 30 s; watch again from the last one"));
    } else if (look) {
      Wake();
    }
  }
  absl::Duration Now() const { return env_.scheduler->clock().Steady(); }

  void Pump() {
    bool delete_now = false;
    while (true) {
      {
        MutexLock lock(&mu_);
        if (done_ || !again_) {
          pumping_ = false;
          delete_now = done_;
          break;
        }
        again_ = false;
        // A reader that lags gets more once it has read these.
        if (queue_.size() >= kPage) {
          more_ = true;
          continue;
        }
      }
      if (record_.finished()) continue;
      absl::StatusOr<bool> ended = ReadEvents();
      if (!ended.ok()) {
        End(ended.status());
      } else if (*ended) {
        MutexLock lock(&mu_);
        end_when_written_ = true;
      }
      WriteNext();
    }
    if (delete_now) delete this;
  }

  // Queues what is new. True when the job's last event is queued. Runs in the pump alone.
  absl::StatusOr<bool> ReadEvents() {
    {
      MutexLock lock(&mu_);
      if (end_when_written_) return true;
    }
    LWQ_ASSIGN_OR_RETURN(const v1::JobRecord record,
                         SeenJob(*env_.scheduler, record_.caller(), name_));
    const v1::Job& job = record.job();
    if (seq_ > job.last_event_seq()) {
      // What this server has in memory is behind the store: a commit is about to be applied, or
      // another server leads and this one has not heard of it yet.
      if (!std::exchange(checked_, true)) return CheckNotAhead();
      return false;
    }
    checked_ = true;
    if (from_snapshot_) {
      from_snapshot_ = false;
      v1::JobEvent event;
      *event.mutable_snapshot() = WithoutItems(job);
      seq_ = job.last_event_seq();
      Queue(std::move(event));
    }
    ListQuery query;
    query.key_prefix = EventPrefix(name_);
    query.limit = static_cast<int>(kPage);
    bool full = true;
    while (full) {
      query.after_key = EventKey(name_, seq_);
      LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                           env_.scheduler->store().List(Table::kEvents, query));
      for (const Record& row : rows) {
        v1::JobEvent event;
        if (!event.ParseFromString(row.value)) {
          return Failure(reasons::kStoreCorrupt, absl::StrCat("event ", row.key));
        }
        seq_ = event.seq();
        Queue(std::move(event));
      }
      full = rows.size() == kPage;
      MutexLock lock(&mu_);
      if (full && queue_.size() >= kPage) {
        more_ = true;
        return false;
      }
    }
    if (IsTerminal(job.state()) && seq_ >= job.last_event_seq()) return true;
    // Events may be newer than the job, whose state is applied after they are stored: its progress
    // would then come after the state that followed it, the job's end included.
    if (seq_ <= job.last_event_seq()) QueueProgress(job);
    return false;
  }

  // Whether the store has what the watcher says it has seen: false, as there is nothing to queue.
  absl::StatusOr<bool> CheckNotAhead() {
    LWQ_ASSIGN_OR_RETURN(const Record row, env_.scheduler->GetJobRow(name_));
    LWQ_ASSIGN_OR_RETURN(const auto record, ParseRecord<v1::JobRecord>(Table::kJobs, row));
    if (seq_ <= record.job().last_event_seq()) return false;
    return Failure(reasons::kResumeTokenAhead,
                   absl::StrCat("resume_seq ", seq_, " is ahead of the job's last event ",
                                record.job().last_event_seq(), ": watch from 0"));
  }

  void QueueProgress(const v1::Job& job) {
    // Time that passes is no news by itself: who watches has a clock.
    v1::Progress timeless = job.progress();
    timeless.clear_remaining_seconds();
    for (v1::RunningTask& task : *timeless.mutable_running()) task.clear_seconds();
    for (v1::PhaseProgress& phase : *timeless.mutable_phases()) phase.clear_remaining_seconds();
    const std::string text = timeless.SerializeAsString();
    bool bookmark = false;
    {
      MutexLock lock(&mu_);
      bookmark = wants_bookmark_;
      wants_bookmark_ = false;
    }
    v1::JobEvent event;
    if (text != last_progress_) {
      last_progress_ = text;
      *event.mutable_progress() = job.progress();
    } else if (bookmark) {
      event.mutable_bookmark();
    } else {
      return;
    }
    Queue(std::move(event));
  }

  void Queue(v1::JobEvent event) {
    event.set_seq(seq_);
    if (!event.has_time()) {
      const int64_t now = env_.scheduler->NowUs();
      event.mutable_time()->set_seconds(now / 1'000'000);
      event.mutable_time()->set_nanos(static_cast<int32_t>(now % 1'000'000) * 1000);
    }
    MutexLock lock(&mu_);
    // Of progress that was not sent yet only the newest counts; the one being written stays.
    if (event.has_progress() && queue_.size() > 1 && queue_.back().has_progress()) {
      queue_.back() = std::move(event);
      return;
    }
    queue_.push_back(std::move(event));
  }

  void WriteNext() {
    const v1::JobEvent* event = nullptr;
    bool end = false;
    {
      MutexLock lock(&mu_);
      if (writing_) return;
      if (!queue_.empty()) {
        event = &queue_.front();
        writing_ = true;
        write_started_ = last_sent_ = Now();
      } else {
        end = end_when_written_;
      }
    }
    if (end) return End(absl::OkStatus());
    if (event == nullptr) return;
    Failpoint("watch.before_event");
    // A write may not follow the finish; whoever finishes takes finish_mu_ too.
    MutexLock lock(&finish_mu_);
    if (!record_.finished()) StartWrite(event);
  }

  void End(const absl::Status& status) {
    MutexLock lock(&finish_mu_);
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  const std::string name_;
  CallRecord record_;
  int64_t job_hint_ = 0;
  int64_t progress_hint_ = 0;
  int64_t tick_hint_ = 0;

  // The pump's alone.
  int64_t seq_;
  bool from_snapshot_;
  bool checked_ = false;
  std::string last_progress_;

  Mutex finish_mu_;  // never held with mu_
  Mutex mu_;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  bool pumping_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool wants_bookmark_ ABSL_GUARDED_BY(mu_) = false;
  bool end_when_written_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::JobEvent> queue_ ABSL_GUARDED_BY(mu_);
  bool moved_ ABSL_GUARDED_BY(mu_) = false;        // progress was hinted at since the last tick
  bool more_ ABSL_GUARDED_BY(mu_) = false;         // left unread because enough was queued
  absl::Duration last_sent_ ABSL_GUARDED_BY(mu_);  // both by the steady clock
  absl::Duration write_started_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

grpc::ServerWriteReactor<v1::JobEvent>* NewWatchCall(ServiceEnv& env,
                                                     grpc::CallbackServerContext* context,
                                                     const v1::WatchJobRequest& request) {
  auto* call = new WatchCall(env, context, request);
  call->Begin();
  return call;
}

}  // namespace lwq
