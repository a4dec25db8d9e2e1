// What a user should know of a job's texts before it runs. Pure.
#pragma once

#include <string>
#include <vector>

#include "server/dispatch/job_graph.h"

namespace lwq {

// One sentence per text that is too short for what the job wants of it, by its size: only workers
// know its tokens. Where the calibration text is, its parts overlap (worker/runner/task_input.h,
// HeldOut), and what is measured on them is no longer on text that chose nothing.
std::vector<std::string> TextWarnings(const GraphInput& input);

}  // namespace lwq
