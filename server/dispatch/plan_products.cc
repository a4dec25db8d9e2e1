#include "server/dispatch/plan_products.h"

#include <set>

#include "records/blob_names.h"
#include "worker/engine/format/weight_format.h"

namespace lwq {

bool IsQuantized(const v1::UnitChoice& unit) {
  return !unit.format().empty() && unit.format() != DenseFormat()->id();
}

std::map<int, Products> ProductsByLayer(const std::vector<v1::PlanSummary>& plans) {
  std::map<int, Products> products;
  for (int u = 0; !plans.empty() && u < plans[0].units_size(); ++u) {
    std::set<std::string> formats;
    for (const v1::PlanSummary& plan : plans) {
      if (IsQuantized(plan.units(u))) formats.insert(plan.units(u).format());
    }
    if (formats.empty()) continue;
    v1::UnitFormats& unit = products[plans[0].units(u).layer()].emplace_back();
    unit.set_unit(plans[0].units(u).unit());
    for (const std::string& format : formats) unit.add_formats(format);
  }
  return products;
}

v1::PlanSummary FormatsOf(const v1::PlanSummary& plan) {
  v1::PlanSummary formats;
  formats.set_artifact_format(plan.artifact_format());
  *formats.mutable_edited_layers() = plan.edited_layers();
  for (const v1::UnitChoice& unit : plan.units()) {
    v1::UnitChoice& format = *formats.add_units();
    format = unit;
    format.clear_cost();
  }
  return formats;
}

std::vector<std::string> ProductKeysOf(const v1::PlanSummary& plan,
                                       const std::map<int, v1::TaskRecord>& quantized) {
  std::vector<std::string> keys;
  for (const int layer : plan.edited_layers()) {
    keys.push_back(quantized.at(layer).product_keys().at(EditsBlobName(layer)));
  }
  for (const v1::UnitChoice& unit : plan.units()) {
    if (!IsQuantized(unit)) continue;
    keys.push_back(
        quantized.at(unit.layer()).product_keys().at(UnitBlobName(unit.unit(), unit.format())));
  }
  return keys;
}

}  // namespace lwq
