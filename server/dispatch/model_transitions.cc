// Models: registered, verified by a task, removed.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "server/dispatch/transitions.h"

namespace lwq {

absl::Status StartModel(Draft& draft, v1::Model model, const TaskNode& ingest) {
  model.set_state(v1::Model::VERIFYING);
  model.clear_failure();
  model.clear_manifest();
  *model.mutable_create_time() = ToTimestamp(draft.now_us());
  const std::string name = model.name();
  const std::string tenant = model.tenant();
  draft.PutModel(std::move(model));
  if (draft.FindTask(ingest.key()) == nullptr) {
    v1::TaskRecord task = ingest;
    task.set_state(v1::TaskRecord::READY);
    task.set_tenant(tenant);
    draft.PutTask(std::move(task));
  }
  v1::TaskRecord& task = *draft.EditTask(ingest.key());
  if (!Contains(task.models(), name)) task.add_models(name);
  ++draft.effects.tasks_ready;
  draft.effects.touched_models.insert(name);
  return absl::OkStatus();
}

absl::Status RemoveModel(Draft& draft, const std::string& name) {
  if (draft.FindModel(name) == nullptr) {
    return Failure(reasons::kNotFound, absl::StrCat("no model ", name));
  }
  std::vector<std::string> jobs;
  for (const auto& [job_name, job] : draft.state().jobs()) {
    if (job.job().spec().quantize().model() == name && jobs.size() < 10) jobs.push_back(job_name);
  }
  if (!jobs.empty()) {
    std::string list;
    for (const std::string& job : jobs) absl::StrAppend(&list, list.empty() ? "" : ", ", job);
    return Failure(reasons::kModelInUse,
                   absl::StrCat("deleting ", name, ": jobs still use it: ", list));
  }
  std::vector<std::string> waiting;
  for (const auto& [key, task] : draft.state().tasks()) {
    if (Contains(task.models(), name)) waiting.push_back(key);
  }
  for (const std::string& key : waiting) {
    RemoveFrom(*draft.EditTask(key)->mutable_models(), name);
    ForgetUnwanted(draft, key);
  }
  draft.DeleteModel(name);
  return absl::OkStatus();
}

}  // namespace lwq
