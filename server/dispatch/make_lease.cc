#include "server/dispatch/make_lease.h"

#include <set>
#include <string>

#include "records/blob_names.h"
#include "server/dispatch/task_key.h"

namespace lwq {
namespace {

// The plan that the task makes something of; null: it has none.
const v1::PlanSummary* PlanOf(const v1::TaskSpec& spec) {
  switch (spec.kind_case()) {
    case v1::TaskSpec::kTrial:
      return &spec.trial().plan();
    case v1::TaskSpec::kAssemble:
      return &spec.assemble().plan();
    case v1::TaskSpec::kVerify:
      return &spec.verify().plan();
    default:
      return nullptr;
  }
}

// The blobs of quantize tasks that belong to `plan`.
std::set<std::string> BlobsOf(const v1::PlanSummary& plan) {
  std::set<std::string> names;
  for (const v1::UnitChoice& unit : plan.units()) {
    names.insert(UnitBlobName(unit.unit(), unit.format()));
  }
  for (const int layer : plan.edited_layers()) names.insert(EditsBlobName(layer));
  return names;
}

// A worker compares the files with what was registered; the layers it reads from the files.
v1::ModelManifest ManifestToSend(const v1::ModelManifest& manifest) {
  v1::ModelManifest sent;
  sent.set_digest(manifest.digest());
  *sent.mutable_files() = manifest.files();
  sent.set_family(manifest.family());
  sent.set_architecture(manifest.architecture());
  sent.set_config_digest(manifest.config_digest());
  sent.set_tokenizer_digest(manifest.tokenizer_digest());
  sent.set_weight_bytes(manifest.weight_bytes());
  return sent;
}

// Of many layers' quantize tasks a plan's task reads one blob a unit, and no report.
v1::TaskOutput QuantizedForPlan(const v1::TaskOutput& output, const std::set<std::string>& wanted) {
  v1::TaskOutput sent;
  sent.mutable_quantize();
  for (const v1::NamedBlob& blob : output.blobs()) {
    if (wanted.count(blob.name()) > 0) *sent.add_blobs() = blob;
  }
  return sent;
}

// What the worker is to keep to: the least that a job which still wants the task has asked for. 0:
// none has.
int64_t CeilingOf(const Draft& draft, const v1::TaskRecord& task) {
  int64_t least = 0;
  for (const std::string& name : task.jobs()) {
    const v1::JobRecord* job = draft.FindJob(name);
    if (job == nullptr || IsTerminal(job->job().state()) ||
        job->job().state() == v1::Job::CANCELLING) {
      continue;
    }
    const int64_t ceiling = job->job().spec().quantize().memory_bytes();
    if (ceiling > 0 && (least == 0 || ceiling < least)) least = ceiling;
  }
  return least;
}

}  // namespace

v1::Lease MakeLease(const Draft& draft, const v1::TaskRecord& task, int64_t ttl_us) {
  v1::Lease lease;
  lease.set_task(task.key());
  lease.set_epoch(task.epoch());
  lease.set_attempt(task.attempt() + 1);
  *lease.mutable_jobs() = task.jobs();
  lease.mutable_ttl()->set_seconds(ttl_us / 1'000'000);
  lease.mutable_ttl()->set_nanos(static_cast<int32_t>(ttl_us % 1'000'000) * 1000);
  lease.set_memory_bytes(CeilingOf(draft, task));
  *lease.mutable_spec() = task.spec();
  if (lease.spec().has_quantize()) {
    *lease.mutable_spec()->mutable_quantize()->mutable_units() = task.missing_units();
    lease.mutable_spec()->mutable_quantize()->set_edits(task.missing_edits());
  }
  v1::ModelInput* input = MutableModelOf(*lease.mutable_spec());
  const v1::Model* model = draft.FindModel(task.model());
  if (input != nullptr && model != nullptr) {
    input->set_directory(model->source().directory());
    *input->mutable_manifest() = ManifestToSend(model->manifest());
  }
  const v1::PlanSummary* plan = PlanOf(task.spec());
  const std::set<std::string> planned = plan == nullptr ? std::set<std::string>() : BlobsOf(*plan);
  for (const v1::TaskDependency& dependency : task.dependencies()) {
    if (dependency.order_only()) continue;
    const v1::TaskRecord* on = draft.FindTask(dependency.key());
    v1::TaskInput& in = *lease.add_inputs();
    in.set_role(dependency.role());
    in.set_layer(dependency.layer());
    if (on == nullptr) continue;
    const bool for_plan = plan != nullptr && on->output().has_quantize();
    *in.mutable_output() = for_plan ? QuantizedForPlan(on->output(), planned) : on->output();
  }
  return lease;
}

}  // namespace lwq
