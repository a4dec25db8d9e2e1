// Upper bounds of a worker's anonymous memory, before a job starts, from sizes alone: what each
// kind of task holds at once. Tasks keep to them by working on few tokens and few rows of weights
// at a time, and on fewer where a ceiling asks for it (WorkLimits).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/plan/menu.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// How much a task works on at a time. Results depend on it in their last bits, so whoever plans a
// task chooses it, and it is part of what the task is named by.
struct WorkLimits {
  int64_t chunk_tokens = 2048;              // that pass through a layer
  int64_t tile_weights = int64_t{1} << 22;  // of a linear that is being quantized
  friend bool operator==(const WorkLimits&, const WorkLimits&) = default;
};

// What a job does that its memory depends on.
struct MemoryQuestion {
  const Menu* menu = nullptr;   // what each unit is made in; null: nothing is quantized
  bool runs_source = false;     // statistics or hidden states are collected
  bool moments = false;         // second moments of inputs among them
  bool factors = false;         // the method factors those
  bool refinement = false;      // and keeps them for a second pass
  bool scores_moments = false;  // the scorer multiplies with them
  bool bf16 = false;            // products of inputs that are rounded
  int64_t longest_window = 0;   // of evaluations, in tokens: keys and values of all are kept
};

// The rolling form scores so many bytes of a text for each token that is wanted of it.
inline constexpr int64_t kRollingBytesPerToken = 4;

// Tokens of the longest sequence that an evaluation runs: a text's rolling windows are as long as
// the model takes, where so many tokens of the text are wanted (negative: all). The rolling form
// counts bytes, of which each may be a token.
int64_t LongestWindow(int64_t text_tokens, int64_t max_positions);

struct MemoryForecast {
  std::map<std::string, WorkLimits, std::less<>> limits;  // by kind, where they are not the largest
  int64_t layer_bytes = 0;  // largest layer's weights as prepared for compute, one of them as read
  int64_t head_bytes = 0;   // a part of the output head with its logits
  int64_t statistics_bytes = 0;  // of the widest linear, being factored; 0 without
  int64_t activation_bytes = 0;  // a chunk of tokens through the widest layer
  int64_t fixed_bytes = 0;       // libraries, code, buffers
  // By kind of task, fixed bytes included. Others copy files: `idle_bytes`.
  int64_t calibrate_bytes = 0, score_bytes = 0, quantize_bytes = 0, trial_bytes = 0,
          evaluate_bytes = 0, verify_bytes = 0, preflight_bytes = 0;
  int64_t idle_bytes = 0;
  int64_t total_bytes = 0;  // the largest of those: the ceiling that is needed

  // `kind` as in task specifications: "calibrate".
  int64_t Of(absl::string_view kind) const;
  WorkLimits LimitsOf(absl::string_view kind) const;
};

// The next smaller limits with which a task of `kind` takes less memory; false where there are
// none.
bool TakeLess(absl::string_view kind, WorkLimits& limits);

MemoryForecast ForecastWorkerMemory(const ModelInventory& model, const MemoryQuestion& question,
                                    const WorkLimits& limits = {});

// Each kind of task under the largest limits with which it keeps to `ceiling_bytes` (0: no
// ceiling); where none does, under the smallest there are. A kind's limits do not depend on what
// others need.
MemoryForecast ForecastUnderCeiling(const ModelInventory& model, const MemoryQuestion& question,
                                    int64_t ceiling_bytes);

// RESOURCE_EXHAUSTED "MEMORY_INFEASIBLE" naming both numbers when `ceiling_bytes` > 0 is too small.
absl::Status CheckMemoryCeiling(const MemoryForecast& forecast, int64_t ceiling_bytes);

}  // namespace lwq
