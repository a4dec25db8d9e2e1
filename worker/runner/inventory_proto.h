// The planner's view of a model, as the record that is stored.
#pragma once

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

v1::Inventory InventoryToProto(const ModelInventory& inventory);

// The formats of a stored plan, in the order of inventory.units. INVALID_ARGUMENT "PLAN_MISMATCH"
// when the plan is of another model.
absl::StatusOr<std::vector<UnitFormat>> FormatsFromPlan(const v1::PlanSummary& plan,
                                                        const ModelInventory& inventory);

}  // namespace lwq
