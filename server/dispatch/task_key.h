// Cache keys: what makes two pieces of work the same. A key is the SHA-256 of {schema, kind,
// version of that kind's engine, parameters that reach the result, leaf inputs as content digests,
// derived inputs as the keys of the tasks that make them}. Directories, workers, budgets and the
// way the work is cut never enter.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/task.pb.h"

namespace lwq {

// "quantize", "evaluate", ...: the name of the kind that is set, "" when none is.
absl::string_view KindOf(const v1::TaskSpec& spec);
v1::Phase PhaseOf(const v1::TaskSpec& spec);
// Every kind, in the order of the phases.
const std::vector<absl::string_view>& TaskKinds();

// The model as a task's parameters hold it: the digest alone.
v1::ModelInput ModelDigest(absl::string_view digest);
// The model input of a spec, or null for ingest.
v1::ModelInput* MutableModelOf(v1::TaskSpec& spec);

// 64 hexadecimal characters. `salt` keeps results apart that must not be shared: the job's name
// when nothing may come from the cache.
std::string TaskKey(const v1::TaskSpec& spec, const std::vector<std::string>& input_keys,
                    absl::string_view salt);

}  // namespace lwq
