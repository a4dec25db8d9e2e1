// What each unit of a model may become, for one job: the planner's menu. A job names rungs ("int3",
// "int4-g64", "dense"); a unit's menu has, for each rung, the format in which the unit's linears
// can be stored that comes nearest, so that a model whose shapes one group size does not divide
// still has every rung.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/model_inventory.h"
#include "worker/engine/plan/profile.h"

namespace lwq {

struct UnitMenu {
  std::vector<const WeightFormat*> formats;  // distinct, ascending in the unit's bytes
  std::vector<int> at_rung;                  // by rung of the job: an index of `formats`

  // Whether there is anything to choose but to leave the unit as it is.
  bool Quantizable() const { return formats.size() > 1 || !formats.front()->dense(); }
  // Index of `format`; -1 when it is not on the menu.
  int Find(const WeightFormat* format) const;
};

struct Menu {
  std::vector<std::string> rungs;  // for people, ascending in the whole model's bytes
  std::vector<UnitMenu> units;     // one per unit of the inventory
  std::vector<std::string> notes;  // one sentence per unit that no format accepts: it stays dense
};

// What a job asks for.
struct MenuRequest {
  // Rungs: "int<bits>", for which `group_sizes` decide; or the id of a format. Empty: the profile's
  // own, and dense.
  std::vector<std::string> formats;
  // Group sizes of "int<bits>" rungs; each gives a rung of its own. 0: the row. Where one does not
  // divide a unit's inputs the next smaller one does that divides, and at last the row.
  std::vector<int64_t> group_sizes = {128};
  bool symmetric = true;
  // Whether an untied head takes part; engines differ in what they make of a quantized one.
  bool quantize_head = false;
};

// INVALID_ARGUMENT: "FORMAT_UNKNOWN", "FORMAT_UNSUPPORTED" (not of this profile; names what is),
// "GROUP_SIZE".
absl::StatusOr<Menu> BuildMenu(const ModelInventory& model, const ProfileDef& profile,
                               const MenuRequest& request);

}  // namespace lwq
