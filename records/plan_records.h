// Between the records and the planner's types: the only place where either is spelled as the other.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/task.pb.h"
#include "worker/engine/plan/allocator.h"

namespace lwq {

v1::Inventory InventoryToProto(const ModelInventory& inventory);
// INVALID_ARGUMENT "DTYPE_UNKNOWN" for a dtype that the planner does not know.
absl::StatusOr<ModelInventory> InventoryOf(const v1::Inventory& inventory);

// INVALID_ARGUMENT "BUDGET_INVALID" when none is set or its numbers make no sense. A recipe of
// llama.cpp's is the bytes of its file of `inventory`, which must be planned as GGUF.
absl::StatusOr<Budget> BudgetOf(const v1::Budget& budget, const ModelInventory& inventory);
v1::Budget BudgetToProto(const Budget& budget);

// The model as the artifacts of a job's profile have it planned. Errors: "PROFILE_UNKNOWN", and why
// no such artifact can be made of the model.
absl::StatusOr<ModelInventory> InventoryFor(const v1::QuantizeSpec& spec, ModelInventory inventory);
// The same for a plan. INVALID_ARGUMENT "ARTIFACT_FORMAT_UNKNOWN".
absl::StatusOr<ModelInventory> InventoryFor(const v1::PlanSummary& plan, ModelInventory inventory);

// What a job asks of the planner's menu. Errors are BuildMenu's.
absl::StatusOr<Menu> MenuOf(const v1::QuantizeSpec& spec, const ModelInventory& inventory);

// "dense", "int4-g128"; "" for an absent unit.
std::string FormatId(const WeightFormat* format);
// Its inverse. INVALID_ARGUMENT "FORMAT_UNKNOWN".
absl::StatusOr<const WeightFormat*> FormatOf(absl::string_view id);

// The place that the `layer` of a unit or a task stands for: a layer, -1 the head, -3 the embedding
// (-2 is no place at all).
int RecordedLayer(Place place);
Place PlaceOfRecord(int layer);

// The stored plan, without costs or what was measured of it.
v1::PlanSummary PlanToProto(const Plan& plan, const ModelInventory& inventory);
// INVALID_ARGUMENT "PLAN_MISMATCH" when the plan is of another model.
absl::StatusOr<Plan> PlanOf(const v1::PlanSummary& plan, const ModelInventory& inventory);

// For each unit that the menu lets become something but dense: the unit and those formats, by the
// layer that is recorded of it. Units keep the inventory's order, formats the menu's.
std::map<int, std::vector<v1::UnitFormats>> QuantizedFormats(const Menu& menu,
                                                             const ModelInventory& inventory);

}  // namespace lwq
