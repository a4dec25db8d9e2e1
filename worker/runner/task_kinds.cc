#include "worker/runner/task_kinds.h"

namespace lwq {

const std::vector<TaskKindInfo>& RunnableKinds() {
  static const auto& kinds = *new std::vector<TaskKindInfo>{
      {"ingest", 1},   {"preflight", 1}, {"calibrate", 6}, {"score", 6}, {"quantize", 6},
      {"assemble", 1}, {"verify", 1},    {"evaluate", 4},  {"trial", 4},
  };
  return kinds;
}

}  // namespace lwq
