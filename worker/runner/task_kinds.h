// The kinds of tasks that this worker runs, and which version of the engine computes each.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace lwq {

struct TaskKindInfo {
  absl::string_view name;
  // Raised by hand whenever the engine's result for the same inputs changes: it is part of the key
  // under which results are shared.
  int version;
};

const std::vector<TaskKindInfo>& RunnableKinds();

}  // namespace lwq
