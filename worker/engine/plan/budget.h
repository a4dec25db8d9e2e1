// The three ways to state a budget, and what each counts.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

struct Budget {
  enum class Kind {
    kFileBytes,      // the weight files whole, headers included
    kBitsPerWeight,  // codes, scales and all that the format stores for the quantizable linears
    kDeviceBytes,    // weights on the device plus the KV cache at `context_length` x `batch_size`
  };
  Kind kind = Kind::kFileBytes;
  int64_t bytes = 0;
  double bits_per_weight = 0;
  int64_t context_length = 0;
  int64_t batch_size = 1;
};

// "3.25bpw", "900MiB", "1.5GiB", "5200000", and "20GB@8192x4" (device bytes at context x batch; the
// batch is 1 when left out). Units B, KB, MB, GB, TB and KiB, MiB, GiB, TiB; fractions of a byte
// drop. INVALID_ARGUMENT "BUDGET_INVALID" says what was read and which forms there are.
absl::StatusOr<Budget> ParseBudget(absl::string_view text);
// What ParseBudget reads back as the same budget.
std::string FormatBudget(const Budget& budget);

// What the budget allows, in bytes of its own measure. Bits per weight are turned into bytes by
// flooring bits_per_weight * num_weights / 8; `num_weights` are those that can be quantized.
int64_t BudgetBytes(const Budget& budget, int64_t num_weights);
// 2 * layers * kv_heads * head_dim * 2 bytes * context * batch.
int64_t KvCacheBytes(const ModelInventory& model, int64_t context_length, int64_t batch_size);

}  // namespace lwq
