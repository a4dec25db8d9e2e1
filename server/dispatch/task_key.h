// Cache keys: what makes two pieces of work the same. A key is the SHA-256 of {schema, kind, the
// version of the engine and the class of numerics of the workers that compute it, parameters that
// reach the result, leaf inputs as content digests, derived inputs as the keys of the tasks that
// make them}. Directories, workers, budgets and the way the work is cut never enter.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/record.pb.h"
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

// What keeps results apart, besides what is computed and from what.
struct KeyScope {
  std::string salt;        // of a job that shares nothing: its own; else its tenant's
  v1::EngineClass engine;  // whose kernels and which versions compute it
};

// What of `engine` a task of this kind needs, and its key holds: the version of its kind, and the
// class of numerics when numbers come of it.
v1::TaskNeeds NeedsOf(const v1::TaskSpec& spec, const v1::EngineClass& engine);

// 64 hexadecimal characters.
std::string TaskKey(const v1::TaskSpec& spec, const std::vector<std::string>& input_keys,
                    const KeyScope& scope);

}  // namespace lwq
