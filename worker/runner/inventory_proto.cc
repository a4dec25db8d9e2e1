#include "worker/runner/inventory_proto.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"

namespace lwq {

v1::Inventory InventoryToProto(const ModelInventory& inventory) {
  v1::Inventory proto;
  proto.set_num_layers(inventory.num_layers);
  proto.set_weight_dtype(std::string(NameOf(inventory.weight_dtype)));
  for (const AllocationUnit& unit : inventory.units) {
    v1::InventoryUnit* out = proto.add_units();
    out->set_name(unit.name);
    out->set_layer(unit.layer);
    for (const LinearShape& linear : unit.linears) {
      v1::InventoryLinear* shape = out->add_linears();
      shape->set_module(linear.module);
      shape->set_out_features(linear.out_features);
      shape->set_in_features(linear.in_features);
    }
  }
  for (const TensorSpec& tensor : inventory.dense) {
    v1::InventoryTensor* out = proto.add_dense();
    out->set_name(tensor.name);
    out->set_dtype(std::string(NameOf(tensor.dtype)));
    for (int64_t dimension : tensor.shape) out->add_shape(dimension);
  }
  proto.set_hidden_size(inventory.hidden_size);
  proto.set_intermediate_size(inventory.intermediate_size);
  proto.set_vocab_size(inventory.vocab_size);
  proto.set_num_heads(inventory.num_heads);
  proto.set_num_kv_heads(inventory.num_kv_heads);
  proto.set_head_dim(inventory.head_dim);
  proto.set_max_positions(inventory.max_positions);
  return proto;
}

absl::StatusOr<std::vector<UnitFormat>> FormatsFromPlan(const v1::PlanSummary& plan,
                                                        const ModelInventory& inventory) {
  if (plan.units_size() != static_cast<int>(inventory.units.size())) {
    return InvalidFailure("PLAN_MISMATCH",
                          absl::StrCat("the plan has ", plan.units_size(), " units, the model ",
                                       inventory.units.size()));
  }
  std::vector<UnitFormat> formats;
  for (int i = 0; i < plan.units_size(); ++i) {
    const v1::UnitChoice& choice = plan.units(i);
    if (choice.unit() != inventory.units[i].name) {
      return InvalidFailure("PLAN_MISMATCH",
                            absl::StrCat("unit ", i, " of the plan is ", choice.unit(),
                                         ", of the model ", inventory.units[i].name));
    }
    formats.push_back({.bits = choice.bits(),
                       .group_size = choice.group_size(),
                       .symmetric = !choice.asymmetric()});
  }
  return formats;
}

}  // namespace lwq
