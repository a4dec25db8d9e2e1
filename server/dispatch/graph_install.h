// Puts a job's graph among the tasks that are there: shares, takes from the cache, leaves out. Part
// of the transitions.
#pragma once

#include <string>

#include "server/dispatch/transitions.h"

namespace lwq {

// Puts a graph's tasks under the job: shares those that are there, takes results from the cache,
// and leaves out what nothing that still has to run depends on.
void InstallGraph(Draft& draft, v1::JobRecord& job, const JobGraph& graph,
                  const CachedResults& cached);

// The finished task `key` of job `name` has lost a blob: it is as it was before it ran. Jobs that
// share it may lack what it depends on, so they build their graphs again too.
void RunAgain(Draft& draft, const std::string& key, const std::string& name,
              const CachedResults& cached);

}  // namespace lwq
