// Why a job is where it is: which tasks run, wait or failed, and what to do. Pure.
#pragma once

#include <string>
#include <vector>

#include "proto/lwq/v1/job_service.pb.h"

namespace lwq::client {

// Lines for people: the job's state and age, what runs, what waits and for what, what failed and
// how often, and the commands that help.
std::string ExplainJob(const v1::Job& job, const std::vector<v1::TaskStatus>& tasks);

}  // namespace lwq::client
