// How a task ends, whoever brought the news: done, given up, or back in the queue.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "records/blob_names.h"
#include "server/dispatch/evaluation_work.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/transitions.h"

namespace lwq {
namespace {

// What of a quantize task's output is of one unit in one format.
v1::TaskOutput ProductOf(const v1::TaskRecord& task, const std::string& unit,
                         const std::string& format) {
  v1::TaskOutput product;
  const std::string name = UnitBlobName(unit, format);
  for (const v1::NamedBlob& blob : task.output().blobs()) {
    if (blob.name() == name) *product.add_blobs() = blob;
  }
  v1::LayerReport& report = *product.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  for (const v1::LinearReport& linear : task.output().quantize().report().linears()) {
    if (linear.unit() == unit && linear.format() == format) *report.add_linears() = linear;
  }
  return product;
}

v1::TaskOutput EditsOf(const v1::TaskRecord& task) {
  v1::TaskOutput edits;
  for (const v1::NamedBlob& blob : task.output().blobs()) {
    if (blob.name() == EditsBlobName(task.layer())) *edits.add_blobs() = blob;
  }
  edits.mutable_quantize()->mutable_report()->set_layer(task.layer());
  return edits;
}

// A task knows its text by its content, so what is wrong with it has no name yet; the job has.
v1::Failure WithDataset(const Draft& draft, const std::string& job, const v1::TaskSpec& task,
                        v1::Failure failure) {
  const v1::JobRecord* record = draft.FindJob(job);
  if (record == nullptr || failure.reason() != reasons::kDatasetInvalid.name) return failure;
  const std::string& name = task.has_evaluate()
                                ? task.evaluate().dataset_name()
                                : record->job().spec().quantize().calibration().dataset();
  failure.set_message(absl::StrCat(name, ": ", failure.message()));
  return failure;
}

void CacheTask(Draft& draft, const v1::TaskRecord& task) {
  // What lies in a directory may change: neither its verification nor its measurement is kept.
  if (task.kind() == "ingest" || task.model().empty()) return;
  v1::CacheRecord record;
  record.set_kind(task.kind());
  record.set_worker(task.worker());
  record.set_created_us(draft.now_us());
  record.set_completion_id(task.completion_id());
  record.set_only_job(task.only_job());
  const v1::WorkerRecord* worker = draft.FindWorker(task.worker());
  if (worker != nullptr) record.set_build(worker->registration().build());
  if (task.product_keys_size() == 0) {
    record.set_key(task.key());
    *record.mutable_output() = task.output();
    draft.changes.cache_puts.push_back(std::move(record));
    return;
  }
  int num_products = task.missing_edits() ? 1 : 0;
  for (const v1::UnitFormats& unit : task.missing_units()) num_products += unit.formats_size();
  const auto put = [&](const std::string& blob, v1::TaskOutput output) {
    v1::CacheRecord product = record;
    product.set_key(task.product_keys().at(blob));
    *product.mutable_output() = std::move(output);
    product.mutable_output()->set_seconds(task.output().seconds() / num_products);
    draft.changes.cache_puts.push_back(std::move(product));
  };
  for (const v1::UnitFormats& unit : task.missing_units()) {
    for (const std::string& format : unit.formats()) {
      put(UnitBlobName(unit.unit(), format), ProductOf(task, unit.unit(), format));
    }
  }
  if (task.missing_edits()) put(EditsBlobName(task.layer()), EditsOf(task));
}

// What a job hears of a task of its own.
void Hear(Draft& draft, const v1::TaskRecord& task, v1::JobRecord& job) {
  if (task.state() == v1::TaskRecord::DONE) {
    PushTaskEvent(draft, job, task, v1::TaskEvent::DONE, "");
    if (task.kind() == "evaluate") {
      CollectEvaluations(draft, job);
      RecountEvaluations(draft, job);
    }
  } else if (task.state() == v1::TaskRecord::LEASED && job.job().state() != v1::Job::CANCELLING) {
    if (job.job().state() == v1::Job::QUEUED && !job.held()) StartJob(draft, job);
    PushTaskEvent(draft, job, task, v1::TaskEvent::LEASED, "");
    UpdateProgress(draft, job);
  }
}

}  // namespace

v1::TaskStatus StatusOf(const v1::TaskRecord& task, bool cached) {
  v1::TaskStatus status;
  status.set_task(task.key());
  status.set_kind(task.kind());
  status.set_layer(task.layer());
  status.set_state(v1::TaskRecord::State_Name(task.state()));
  status.set_cached(cached);
  status.set_attempt(task.attempt());
  status.set_worker(task.worker());
  status.set_seconds(task.state() == v1::TaskRecord::DONE ? task.output().seconds() : 0);
  status.set_operations(task.operations());
  status.set_lost(task.lost_count());
  if (task.has_failure()) {
    status.set_detail(task.failure().message());
    *status.mutable_failure() = task.failure();
  }
  return status;
}

void PushTaskEvent(Draft& draft, v1::JobRecord& job, const v1::TaskRecord& task,
                   v1::TaskEvent::State state, absl::string_view detail) {
  v1::JobEvent event;
  v1::TaskEvent& e = *event.mutable_task();
  e.set_task(task.key());
  e.set_kind(task.kind());
  e.set_layer(task.layer());
  e.set_state(state);
  e.set_worker(state == v1::TaskEvent::CACHED ? "" : task.worker());
  if (state == v1::TaskEvent::DONE || state == v1::TaskEvent::CACHED) {
    e.set_seconds(task.output().seconds());
  }
  e.set_detail(std::string(detail));
  draft.PushEvent(job, std::move(event));
}

void TellJobs(Draft& draft, const std::string& key) {
  const v1::TaskRecord* found = draft.FindTask(key);
  if (found == nullptr || found->untold().empty()) return;
  v1::TaskRecord* task = draft.EditTask(key);
  const int count = std::min(kJobsToldAtOnce, task->untold_size());
  const std::vector<std::string> jobs(task->untold().begin(), task->untold().begin() + count);
  task->mutable_untold()->DeleteSubrange(0, count);
  if (!task->untold().empty()) draft.effects.untold_tasks.insert(key);
  const bool done = task->state() == v1::TaskRecord::DONE;
  for (const std::string& name : jobs) {
    if (v1::JobRecord* job = draft.EditJob(name)) Hear(draft, *task, *job);
  }
  if (!done) return;
  for (const std::string& name : jobs) AdvanceJob(draft, name);
}

void HearOfTasks(Draft& draft, v1::JobRecord& job) {
  const std::string& name = job.job().name();
  for (const std::string& key : job.tasks()) {
    const v1::TaskRecord* task = draft.FindTask(key);
    if (task == nullptr || !Contains(task->untold(), name)) continue;
    if (task->state() == v1::TaskRecord::DONE) Hear(draft, *task, job);
    RemoveFrom(*draft.EditTask(key)->mutable_untold(), name);
  }
}

void FinishTask(Draft& draft, const std::string& key, const v1::TaskOutput& output) {
  v1::TaskRecord& task = *draft.EditTask(key);
  // A quantize task may hold products that the cache gave; the worker brought the others.
  v1::TaskOutput merged = output;
  if (task.product_keys_size() > 0) {
    merged.mutable_blobs()->MergeFrom(task.output().blobs());
    merged.mutable_quantize()->mutable_report()->mutable_linears()->MergeFrom(
        task.output().quantize().report().linears());
  }
  *task.mutable_output() = std::move(merged);
  task.set_state(v1::TaskRecord::DONE);
  task.clear_failure();
  draft.effects.task_counts.push_back({task.kind(), v1::TaskEvent::DONE, output.seconds()});
  CacheTask(draft, task);
  const std::vector<std::string> models(task.models().begin(), task.models().end());
  for (const std::string& name : models) {
    v1::Model* model = draft.EditModel(name);
    if (model == nullptr) continue;
    model->set_state(v1::Model::ACTIVE);
    *model->mutable_manifest() = task.output().ingest();
    draft.effects.touched_models.insert(name);
  }
  task.clear_models();
  *task.mutable_untold() = task.jobs();
  TellJobs(draft, key);
  ForgetUnwanted(draft, key);
}

void GiveUpTask(Draft& draft, const std::string& key, const v1::Failure& failure) {
  v1::TaskRecord& task = *draft.EditTask(key);
  task.set_state(v1::TaskRecord::FAILED);
  task.clear_untold();
  *task.mutable_failure() = failure;
  draft.effects.task_counts.push_back({task.kind(), v1::TaskEvent::FAILED});
  const std::vector<std::string> jobs(task.jobs().begin(), task.jobs().end());
  for (const std::string& name : task.models()) {
    v1::Model* model = draft.EditModel(name);
    if (model == nullptr) continue;
    model->set_state(v1::Model::REJECTED);
    *model->mutable_failure() = failure;
    draft.effects.touched_models.insert(name);
  }
  task.clear_models();
  for (const std::string& name : jobs) {
    v1::JobRecord* job = draft.EditJob(name);
    if (job != nullptr) PushTaskEvent(draft, *job, task, v1::TaskEvent::FAILED, failure.message());
  }
  // The task goes with the last job that wanted it.
  const v1::TaskSpec spec = task.spec();
  for (const std::string& name : jobs)
    FailJob(draft, name, WithDataset(draft, name, spec, failure));
  ForgetUnwanted(draft, key);
}

void RequeueTask(Draft& draft, const std::string& key, int64_t ready_us, absl::string_view why) {
  v1::TaskRecord& task = *draft.EditTask(key);
  const std::vector<std::string> jobs(task.jobs().begin(), task.jobs().end());
  for (const std::string& name : jobs) {
    v1::JobRecord* job = draft.EditJob(name);
    if (job != nullptr) PushTaskEvent(draft, *job, task, v1::TaskEvent::RETRY, why);
  }
  task.set_state(v1::TaskRecord::READY);
  task.clear_untold();
  task.set_ready_us(ready_us);
  task.clear_worker();
  task.clear_incarnation();
  ++draft.effects.tasks_ready;
  draft.effects.task_counts.push_back({task.kind(), v1::TaskEvent::RETRY});
  for (const std::string& name : jobs) AdvanceJob(draft, name);
  ForgetUnwanted(draft, key);
}

}  // namespace lwq
