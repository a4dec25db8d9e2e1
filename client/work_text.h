// What the protocol says of work, for people: tasks, and how long a job is expected to take.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// "quantize layer 3", "quantize lm_head", "trial": layers as records have them.
std::string TaskName(absl::string_view kind, int32_t layer);

// "score layer 7 on w1 for 12s, 45%": a task that a worker has, and why it does not get on.
std::string RunningText(const v1::RunningTask& task);

// "BUSY", "READY, cordoned"; "SILENT 12s" of one that nothing was heard of for so long.
std::string WorkerStateText(const v1::Worker& worker);

// Which tasks have begun to stand still, told once each until they get on.
class Standing {
 public:
  std::vector<v1::RunningTask> Take(const v1::Progress& progress);

 private:
  std::set<std::string> known_;
};

// "about 6 min: calibrate 31s, score 2m10s, ..." of what a job is expected to take; "" where there
// is nothing to do, and why nobody can say where there is no worker to tell.
std::string ForecastText(const v1::WorkForecast& work);

// "1.2e+12 multiplications: ..." by phase, for those who plan machines.
std::string OperationsText(const v1::WorkForecast& work);

}  // namespace lwq::client
