#include "server/dispatch/task_match.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lwq {
namespace {

bool HasCapability(const google::protobuf::RepeatedPtrField<v1::Capability>& list,
                   const std::string& name) {
  return std::any_of(list.begin(), list.end(),
                     [&](const v1::Capability& c) { return c.name() == name; });
}

// 0 when the worker does not run the kind.
int VersionOf(const v1::RegisterWorkerRequest& worker, const std::string& kind) {
  for (const v1::TaskKindVersion& known : worker.kinds()) {
    if (known.kind() == kind) return known.version();
  }
  return 0;
}

}  // namespace

TaskNeed NeedOf(const v1::TaskRecord& task) {
  TaskNeed need;
  need.kind = task.kind();
  if (task.spec().has_quantize()) need.method = task.spec().quantize().recipe().method();
  if (task.spec().has_score()) need.scorer = task.spec().score().scorer();
  need.family = task.needs().family();
  need.numerics_class = task.needs().numerics_class();
  need.engine_version = task.needs().engine_version();
  need.memory_bytes = task.needs().memory_bytes();
  return need;
}

std::string WhyNot(const v1::RegisterWorkerRequest& worker, const TaskNeed& need) {
  const int version = VersionOf(worker, need.kind);
  if (version == 0) return absl::StrCat("runs no ", need.kind, " tasks");
  if (need.engine_version != 0 && version != need.engine_version) {
    return absl::StrCat("has version ", version, " of ", need.kind, ", not ", need.engine_version);
  }
  if (!need.numerics_class.empty() && worker.numerics_class() != need.numerics_class) {
    return absl::StrCat("computes as ", worker.numerics_class(), ", not as ", need.numerics_class);
  }
  if (!need.method.empty() && !HasCapability(worker.quantizers(), need.method)) {
    return absl::StrCat("has no method ", need.method);
  }
  if (!need.scorer.empty() && !HasCapability(worker.scorers(), need.scorer)) {
    return absl::StrCat("has no scorer ", need.scorer);
  }
  if (!need.family.empty() && std::find(worker.families().begin(), worker.families().end(),
                                        need.family) == worker.families().end()) {
    return absl::StrCat("does not read models of family ", need.family);
  }
  if (worker.memory_bytes() > 0 && worker.memory_bytes() < need.memory_bytes) {
    return absl::StrCat("keeps to ", worker.memory_bytes(), " bytes of memory, ", need.memory_bytes,
                        " are needed");
  }
  return "";
}

std::string ProcessName(const v1::RegisterWorkerRequest& worker) {
  return absl::StrCat(worker.worker_id(), "/", worker.incarnation());
}

bool IsExcluded(const v1::TaskRecord& task, const v1::RegisterWorkerRequest& worker) {
  if (task.excluded().empty()) return false;
  const std::string process = ProcessName(worker);
  return std::find(task.excluded().begin(), task.excluded().end(), process) !=
         task.excluded().end();
}

v1::EngineClass EngineOf(const v1::RegisterWorkerRequest& worker) {
  v1::EngineClass engine;
  engine.set_numerics_class(worker.numerics_class());
  for (const v1::TaskKindVersion& known : worker.kinds()) {
    (*engine.mutable_versions())[known.kind()] = known.version();
  }
  return engine;
}

}  // namespace lwq
