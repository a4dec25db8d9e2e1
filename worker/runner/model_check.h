// Whether lwq can do something with a model directory, without a server: what `lwq-worker
// --check-model` prints and `lwqctl doctor` shows.
#pragma once

#include <string>
#include <vector>

namespace lwq {

struct ModelCheck {
  std::string name;    // "config", "weights", "tensors", "tokenizer", "gguf"
  std::string state;   // "ok", "warn", "fail"
  std::string detail;  // what was found
  std::string advice;  // what to do; empty when ok
};

// Opens config, weights and tokenizer as a job would, and stops where nothing further can be said.
// Reads headers only, so it takes no longer for a large model.
std::vector<ModelCheck> CheckModel(const std::string& directory);

// One JSON object a line.
std::string ModelChecksJson(const std::vector<ModelCheck>& checks);
// Whether none failed.
bool AllPassed(const std::vector<ModelCheck>& checks);

}  // namespace lwq
