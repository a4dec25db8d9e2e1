// The mixtures that llama.cpp's own llama-quantize makes, for budgets that mean "no larger than
// that": which type its recipe gives each tensor, and so how large the file is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// "Q2_K", "Q3_K_M", ...; sorted.
std::vector<std::string> GgufRecipeNames();
// The weight format of each unit of `model`, which is planned as GGUF (artifact_format.h), in a
// recipe's file, made with an importance matrix. INVALID_ARGUMENT "BUDGET_INVALID" lists the
// recipes there are; FAILED_PRECONDITION "MODEL_INVALID" for linears whose roles are not known.
absl::StatusOr<std::vector<const WeightFormat*>> GgufRecipePlan(const ModelInventory& model,
                                                                absl::string_view recipe);

}  // namespace lwq
