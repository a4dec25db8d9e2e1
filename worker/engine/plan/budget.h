// The ways to state a budget, and what each counts. One grammar for everybody who reads one.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// No stored weight is wider than F64.
inline constexpr double kMaxBitsPerWeight = 64;

struct Budget {
  enum class Kind {
    kFileBytes,      // the weight files whole, headers included
    kBitsPerWeight,  // codes, scales and all that the format stores for the quantizable linears
    kDeviceBytes,    // weights on the device plus the KV cache at `context_length` x `batch_size`
    kShareOfSource,  // `percent` of the source's weight files; ResolveShare before planning
  };
  Kind kind = Kind::kFileBytes;
  int64_t bytes = 0;
  double bits_per_weight = 0;
  double percent = 0;
  int64_t context_length = 0;
  int64_t batch_size = 1;
};

// "3.25bpw", "900MB" or "4 GiB" (sizes as in base/byte_size.h), "50%" of the source, "20GB@8192x4"
// (device bytes at context x batch; the batch is 1 when left out), or the name of a preset. A blank
// may stand before a unit, nowhere else. INVALID_ARGUMENT "BUDGET_INVALID" says what was read and
// which forms there are.
absl::StatusOr<Budget> ParseBudget(absl::string_view text);
// What ParseBudget reads back as the same budget.
std::string FormatBudget(const Budget& budget);

// Budgets by name, for those who do not want to choose.
struct BudgetPreset {
  absl::string_view name;
  absl::string_view budget;  // as ParseBudget reads it
  absl::string_view help;
};
absl::Span<const BudgetPreset> BudgetPresets();

// A share of the source as the bytes that it is of weight files of `source_bytes`; other budgets as
// they are.
Budget ResolveShare(const Budget& budget, int64_t source_bytes);

// What the budget allows, in bytes of its own measure. Bits per weight are turned into bytes by
// flooring bits_per_weight * num_weights / 8; `num_weights` are those that can be quantized.
int64_t BudgetBytes(const Budget& budget, int64_t num_weights);
// 2 * layers * kv_heads * head_dim * 2 bytes * context * batch.
int64_t KvCacheBytes(const ModelInventory& model, int64_t context_length, int64_t batch_size);

}  // namespace lwq
