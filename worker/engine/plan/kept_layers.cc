#include "worker/engine/plan/kept_layers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// What of a model belongs to one layer: indices into its units and its dense tensors, in their order.
struct LayerParts {
  std::vector<size_t> units;
  std::vector<size_t> dense;
};

std::vector<LayerParts> PartsOf(const ModelInventory& model) {
  std::vector<LayerParts> layers(static_cast<size_t>(std::max(model.num_layers, 0)));
  const auto add = [&](Place place, size_t index, std::vector<size_t> LayerParts::*list) {
    if (place.in_layer()) (layers[static_cast<size_t>(place.layer)].*list).push_back(index);
  };
  for (size_t u = 0; u < model.units.size(); ++u) add(model.units[u].place, u, &LayerParts::units);
  for (size_t d = 0; d < model.dense.size(); ++d) add(model.dense[d].place, d, &LayerParts::dense);
  return layers;
}

bool Alike(const AllocationUnit& a, const AllocationUnit& b) {
  return a.kind == b.kind &&
         std::equal(a.linears.begin(), a.linears.end(), b.linears.begin(), b.linears.end(),
                    [](const LinearShape& x, const LinearShape& y) {
                      return x.name == y.name && x.out_features == y.out_features &&
                             x.in_features == y.in_features;
                    });
}

bool Alike(const DenseTensor& a, const DenseTensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.bias_of.empty() == b.bias_of.empty();
}

bool Alike(const ModelInventory& model, const LayerParts& a, const LayerParts& b) {
  return std::equal(a.units.begin(), a.units.end(), b.units.begin(), b.units.end(),
                    [&](size_t x, size_t y) { return Alike(model.units[x], model.units[y]); }) &&
         std::equal(a.dense.begin(), a.dense.end(), b.dense.begin(), b.dense.end(),
                    [&](size_t x, size_t y) { return Alike(model.dense[x], model.dense[y]); });
}

absl::Status Mismatch(absl::string_view what) { return Failure(reasons::kPlanMismatch, what); }

}  // namespace

bool DropsLayers(const ModelInventory& model, const Plan& plan) {
  return std::any_of(plan.begin(), plan.begin() + std::min(plan.size(), model.units.size()),
                     [](const WeightFormat* format) { return format == nullptr; });
}

std::vector<int> KeptLayers(const ModelInventory& model, const Plan& plan) {
  std::vector<bool> kept(static_cast<size_t>(model.num_layers), true);
  for (size_t u = 0; u < plan.size(); ++u) {
    const Place place = model.units[u].place;
    if (plan[u] == nullptr && place.in_layer()) kept[static_cast<size_t>(place.layer)] = false;
  }
  std::vector<int> layers;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    if (kept[static_cast<size_t>(layer)]) layers.push_back(layer);
  }
  return layers;
}

absl::Status CheckKept(const ModelInventory& model, const Plan& plan) {
  if (!DropsLayers(model, plan)) return absl::OkStatus();
  const std::vector<int> kept = KeptLayers(model, plan);
  if (kept.empty()) return Mismatch("the plan keeps none of the model's layers");
  const auto is_kept = [&](int layer) {
    return std::binary_search(kept.begin(), kept.end(), layer);
  };
  for (size_t u = 0; u < plan.size(); ++u) {
    const AllocationUnit& unit = model.units[u];
    const bool there = !unit.place.in_layer() || is_kept(unit.place.layer);
    if (there == (plan[u] != nullptr)) continue;
    return Mismatch(absl::StrCat("the plan ", there ? "leaves out " : "keeps ", unit.name,
                                 there ? ", which is in no layer that could be"
                                       : " of a layer whose other units it leaves out"));
  }
  const std::vector<LayerParts> layers = PartsOf(model);
  for (size_t layer = 1; layer < layers.size(); ++layer) {
    if (Alike(model, layers[0], layers[layer])) continue;
    return Mismatch(absl::StrCat("the plan leaves layers out of a model whose layer ", layer,
                                 " is not built as its first: they cannot be renumbered"));
  }
  return absl::OkStatus();
}

KeptModel KeepLayers(const ModelInventory& model, const Plan& plan) {
  KeptModel kept;
  kept.layers = KeptLayers(model, plan);
  if (!DropsLayers(model, plan)) {
    kept.model = model;
    kept.plan = plan;
    return kept;
  }
  kept.model = model;
  kept.model.units.clear();
  kept.model.dense.clear();
  kept.model.num_layers = static_cast<int>(kept.layers.size());
  const auto rename = [&](const std::string& name, const std::string& in_source) {
    if (name != in_source) kept.source_names.emplace(name, in_source);
  };
  const std::vector<LayerParts> layers = PartsOf(model);
  const auto add_unit = [&](size_t named, size_t source) {
    AllocationUnit unit = model.units[named];
    for (size_t l = 0; l < unit.linears.size(); ++l) {
      rename(unit.linears[l].module, model.units[source].linears[l].module);
      rename(absl::StrCat(unit.linears[l].module, ".weight"),
             absl::StrCat(model.units[source].linears[l].module, ".weight"));
    }
    kept.model.units.push_back(std::move(unit));
    kept.plan.push_back(plan[source]);
  };
  // In the order of the source: layers come together, what is outside them stays where it is.
  size_t next = 0;  // of kept.layers
  for (size_t u = 0; u < model.units.size(); ++u) {
    const Place place = model.units[u].place;
    if (!place.in_layer()) {
      add_unit(u, u);
      continue;
    }
    const std::vector<size_t>& units = layers[static_cast<size_t>(place.layer)].units;
    if (plan[u] == nullptr || u != units.front()) continue;
    for (size_t i = 0; i < units.size(); ++i) add_unit(layers[next].units[i], units[i]);
    ++next;
  }
  for (const DenseTensor& tensor : model.dense) {
    if (!tensor.place.in_layer()) kept.model.dense.push_back(tensor);
  }
  for (size_t k = 0; k < kept.layers.size(); ++k) {
    const std::vector<size_t>& source = layers[static_cast<size_t>(kept.layers[k])].dense;
    for (size_t i = 0; i < source.size(); ++i) {
      kept.model.dense.push_back(model.dense[layers[k].dense[i]]);
      rename(kept.model.dense.back().name, model.dense[source[i]].name);
    }
  }
  std::sort(kept.model.dense.begin(), kept.model.dense.end(),
            [](const DenseTensor& a, const DenseTensor& b) { return a.name < b.name; });
  return kept;
}

}  // namespace lwq
