#include "worker/worker_metrics.h"

#include <algorithm>
#include <vector>

#include "base/memory_usage.h"
#include "worker/runner/task_kinds.h"

namespace lwq {
namespace {

std::vector<std::string> Kinds() {
  std::vector<std::string> kinds;
  for (const TaskKindInfo& kind : RunnableKinds()) kinds.emplace_back(kind.name);
  return kinds;
}

std::string TaskKind(const v1::TaskSpec& spec) {
  const auto* kinds = v1::TaskSpec::descriptor()->FindOneofByName("kind");
  const auto* set = spec.GetReflection()->GetOneofFieldDescriptor(spec, kinds);
  return set == nullptr ? "" : set->name();
}

// Of the text that a task asks for; 0 for kinds that read none.
int64_t TokensOf(const v1::TaskSpec& spec) {
  switch (spec.kind_case()) {
    case v1::TaskSpec::kCalibrate:
      return spec.calibrate().calibration().num_tokens();
    case v1::TaskSpec::kScore:
      return spec.score().held_out().score_tokens();
    case v1::TaskSpec::kTrial:
      return spec.trial().judge() ? spec.trial().held_out().judge_tokens()
                                  : spec.trial().held_out().trial_tokens();
    case v1::TaskSpec::kEvaluate:
      return spec.evaluate().text_tokens();
    default:
      return 0;
  }
}

}  // namespace

WorkerMetrics::WorkerMetrics(const std::string& device, int64_t memory_bytes)
    : busy_(metrics_.AddGauge("lwq_worker_busy", "1 while a task runs, else 0.", {}, {{}})),
      tasks_(metrics_.AddCounter("lwq_worker_tasks_total", "Tasks that ended on this worker.",
                                 {"kind", "outcome"},
                                 AllOf({Kinds(), {"done", "failed", "released"}}))),
      stage_seconds_(metrics_.AddCounter(
          "lwq_worker_stage_seconds_total",
          "Where the time of tasks went; threads that move blobs at the same time count each.",
          {"stage"}, AllOf({{"fetch", "compute", "upload"}}))),
      blob_bytes_(metrics_.AddCounter(
          "lwq_worker_blob_bytes_total",
          "Bytes of blobs that tasks read and wrote, those of the local cache included.", {"stage"},
          AllOf({{"fetch", "upload"}}))),
      tokens_(metrics_.AddCounter(
          "lwq_worker_tokens_total",
          "Tokens of text that finished tasks put through the model, or through a part of it.",
          {"kind"}, AllOf({{"calibrate", "score", "trial", "evaluate"}}))),
      memory_(metrics_.AddGauge(
          "lwq_worker_memory_bytes",
          "Anonymous memory now, the most of the last task, and the ceiling (0: none).", {"kind"},
          AllOf({{"now", "peak", "ceiling"}}))),
      certificate_life_(
          metrics_.AddGauge("lwq_tls_certificate_life_seconds",
                            "Until the certificate that the worker shows expires; -1 when it has, "
                            "or cannot be read; 0 without one.",
                            {}, {{}})) {
  memory_->Set({"ceiling"}, static_cast<double>(memory_bytes));
  metrics_
      .AddGauge("lwq_worker_info", "The worker; always 1.", {"device", "version"},
                {{device, LWQ_VERSION}})
      ->Set({device, LWQ_VERSION}, 1);
}

void WorkerMetrics::TaskStarted() {
  busy_->Set({}, 1);
  MutexLock lock(&mu_);
  moving_seconds_ = 0;
}

void WorkerMetrics::TaskEnded(const v1::TaskSpec& spec, const std::string& outcome, double seconds,
                              int64_t peak_anonymous_bytes) {
  busy_->Set({}, 0);
  tasks_->Add({TaskKind(spec), outcome});
  const int64_t tokens = outcome == "done" ? TokensOf(spec) : 0;
  if (tokens > 0) tokens_->Add({TaskKind(spec)}, static_cast<double>(tokens));
  memory_->Set({"peak"}, static_cast<double>(peak_anonymous_bytes));
  MutexLock lock(&mu_);
  stage_seconds_->Add({"compute"}, std::max(0.0, seconds - moving_seconds_));
}

void WorkerMetrics::Moved(const std::string& stage, double seconds, int64_t bytes) {
  stage_seconds_->Add({stage}, seconds);
  blob_bytes_->Add({stage}, static_cast<double>(bytes));
  MutexLock lock(&mu_);
  moving_seconds_ += seconds;
}

void WorkerMetrics::SetCertificateLife(double seconds) { certificate_life_->Set({}, seconds); }

std::string WorkerMetrics::Expose() {
  process_.Update();
  const int child = child_;
  const int64_t of_child = child == 0 ? 0 : AnonymousMemoryBytesOf(child);
  memory_->Set({"now"}, static_cast<double>(AnonymousMemoryBytes() + of_child));
  return metrics_.Expose();
}

absl::StatusOr<std::string> MeasuredBlobs::Fetch(const v1::BlobRef& blob) {
  const absl::Duration start = clock_->Steady();
  absl::StatusOr<std::string> path = blobs_->Fetch(blob);
  metrics_->Moved("fetch", absl::ToDoubleSeconds(clock_->Steady() - start),
                  path.ok() ? blob.size_bytes() : 0);
  return path;
}

absl::StatusOr<v1::BlobRef> MeasuredBlobs::Store(const std::string& path,
                                                 const std::string& sha256) {
  const absl::Duration start = clock_->Steady();
  absl::StatusOr<v1::BlobRef> blob = blobs_->Store(path, sha256);
  metrics_->Moved("upload", absl::ToDoubleSeconds(clock_->Steady() - start),
                  blob.ok() ? blob->size_bytes() : 0);
  return blob;
}

}  // namespace lwq
