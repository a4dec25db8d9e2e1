// Which worker can run which task: everything that is checked before a task is leased.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"

namespace lwq {

// What a task needs of a worker. Tasks of equal needs are interchangeable to a worker.
struct TaskNeed {
  std::string kind;
  std::string method;  // of a quantize task
  std::string scorer;  // of a score task
  std::string family;
  std::string numerics_class;
  int engine_version = 0;
  int64_t memory_bytes = 0;

  auto operator<=>(const TaskNeed&) const = default;
};

TaskNeed NeedOf(const v1::TaskRecord& task);

// "" when the worker can run it, else what it lacks: "has no method gptq".
std::string WhyNot(const v1::RegisterWorkerRequest& worker, const TaskNeed& need);
inline bool CanRun(const v1::RegisterWorkerRequest& worker, const TaskNeed& need) {
  return WhyNot(worker, need).empty();
}

// "w/incarnation": how TaskRecord.excluded names a process of a worker.
std::string ProcessName(const v1::RegisterWorkerRequest& worker);
bool IsExcluded(const v1::TaskRecord& task, const v1::RegisterWorkerRequest& worker);

// The class of workers that this one belongs to.
v1::EngineClass EngineOf(const v1::RegisterWorkerRequest& worker);

}  // namespace lwq
