// A plan that leaves layers out, as the model that it makes: fewer layers that close ranks, so that
// the third of the source may be the second of the artifact and bear that one's names.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// Whether some layer of the model is absent.
bool DropsLayers(const ModelInventory& model, const Plan& plan);
// The layers that are there, ascending.
std::vector<int> KeptLayers(const ModelInventory& model, const Plan& plan);

// INTERNAL "PLAN_MISMATCH" for a layer of which some units are absent and some are not, for
// what is outside the layers and absent, for a plan that keeps no layer, and for one that drops
// layers of a model whose layers are not all alike: then a layer cannot take another's names.
absl::Status CheckKept(const ModelInventory& model, const Plan& plan);

struct KeptModel {
  std::vector<int> layers;  // of the source
  ModelInventory model;     // as the artifact has it
  Plan plan;                // of model.units: nothing is absent
  // What a module or a tensor of the artifact is called in the source, where that differs.
  absl::flat_hash_map<std::string, std::string> source_names;

  const std::string& InSource(const std::string& name) const {
    const auto found = source_names.find(name);
    return found == source_names.end() ? name : found->second;
  }
};
// Of a plan that CheckKept accepts; of one that drops nothing, the model as it is.
KeptModel KeepLayers(const ModelInventory& model, const Plan& plan);

}  // namespace lwq
