#include "worker/runner/task_kinds.h"

namespace lwq {

const std::vector<TaskKindInfo>& RunnableKinds() {
  static const auto& kinds = *new std::vector<TaskKindInfo>{
      {"ingest", 4},   {"preflight", 1}, {"calibrate", 7}, {"score", 11}, {"quantize", 10},
      {"assemble", 2}, {"verify", 2},    {"evaluate", 7},  {"trial", 6},
  };
  return kinds;
}

}  // namespace lwq
