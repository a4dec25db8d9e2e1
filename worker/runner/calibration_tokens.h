// Calibration texts as tokens, kept by a worker from one task to the next: all tasks of a job read
// the same text, and cutting it into tokens can take longer than a task's products.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "worker/engine/model/decoder.h"

namespace lwq {

// Thread-safe.
class CalibrationTokens {
 public:
  // Texts that are kept: one per job, and a few jobs may take turns on a worker.
  static constexpr size_t kMaxTexts = 4;

  using Maker = absl::FunctionRef<absl::StatusOr<TokenBatch>()>;
  // What `make` returned when it was first called for `key`, which names all that decides the
  // tokens. Errors are not kept.
  absl::StatusOr<std::shared_ptr<const TokenBatch>> Get(const std::string& key, Maker make);

 private:
  Mutex mu_;
  // The latest first.
  std::deque<std::pair<std::string, std::shared_ptr<const TokenBatch>>> texts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq
