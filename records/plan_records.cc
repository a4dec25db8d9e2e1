#include "records/plan_records.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/gguf_recipe.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

constexpr int kHeadLayer = -1;
constexpr int kEmbeddingLayer = -3;  // -2 stands for tasks of no layer

v1::ModelPart PartOf(Place place) {
  switch (place.part) {
    case Place::Part::kEmbedding:
      return v1::PART_EMBEDDING;
    case Place::Part::kLayer:
      return v1::PART_LAYER;
    case Place::Part::kFinalNorm:
      return v1::PART_FINAL_NORM;
    case Place::Part::kHead:
      return v1::PART_HEAD;
  }
  return v1::PART_UNSPECIFIED;
}

constexpr std::pair<LinearRole, v1::LinearRole> kRoles[] = {
    {LinearRole::kUnknown, v1::LINEAR_ROLE_UNSPECIFIED},
    {LinearRole::kQuery, v1::LINEAR_QUERY},
    {LinearRole::kKey, v1::LINEAR_KEY},
    {LinearRole::kValue, v1::LINEAR_VALUE},
    {LinearRole::kQueryKeyValue, v1::LINEAR_QUERY_KEY_VALUE},
    {LinearRole::kOutput, v1::LINEAR_OUTPUT},
    {LinearRole::kGate, v1::LINEAR_GATE},
    {LinearRole::kUp, v1::LINEAR_UP},
    {LinearRole::kGateUp, v1::LINEAR_GATE_UP},
    {LinearRole::kDown, v1::LINEAR_DOWN},
    {LinearRole::kHead, v1::LINEAR_HEAD},
    {LinearRole::kEmbedding, v1::LINEAR_EMBEDDING}};

v1::LinearRole RoleToProto(LinearRole role) {
  for (const auto& [ours, recorded] : kRoles) {
    if (ours == role) return recorded;
  }
  return v1::LINEAR_ROLE_UNSPECIFIED;
}

// One that a later version of lwq recorded is as good as none.
LinearRole RoleOf(v1::LinearRole role) {
  for (const auto& [ours, recorded] : kRoles) {
    if (recorded == role) return ours;
  }
  return LinearRole::kUnknown;
}

absl::StatusOr<Place> PlaceOf(v1::ModelPart part, int layer, absl::string_view what) {
  switch (part) {
    case v1::PART_EMBEDDING:
      return Place::Embedding();
    case v1::PART_LAYER:
      return Place::Layer(layer);
    case v1::PART_FINAL_NORM:
      return Place::FinalNorm();
    case v1::PART_HEAD:
      return Place::Head();
    default:
      return Failure(reasons::kModelInvalid,
                     absl::StrCat("the model's manifest does not say where ", what,
                                  " belongs: an earlier version of lwq made it; register "
                                  "the model again"));
  }
}

}  // namespace

int RecordedLayer(Place place) {
  if (place.in_layer()) return place.layer;
  return place == Place::Embedding() ? kEmbeddingLayer : kHeadLayer;
}

Place PlaceOfRecord(int layer) {
  if (layer >= 0) return Place::Layer(layer);
  return layer == kEmbeddingLayer ? Place::Embedding() : Place::Head();
}

v1::Inventory InventoryToProto(const ModelInventory& inventory) {
  v1::Inventory proto;
  proto.set_num_layers(inventory.num_layers);
  proto.set_weight_dtype(std::string(NameOf(inventory.weight_dtype)));
  for (const AllocationUnit& unit : inventory.units) {
    v1::InventoryUnit* out = proto.add_units();
    out->set_name(unit.name);
    out->set_layer(RecordedLayer(unit.place));
    out->set_part(PartOf(unit.place));
    out->set_kind(unit.kind);
    for (const LinearShape& linear : unit.linears) {
      v1::InventoryLinear* shape = out->add_linears();
      shape->set_module(linear.module);
      shape->set_out_features(linear.out_features);
      shape->set_in_features(linear.in_features);
      shape->set_name(linear.name);
      shape->set_role(RoleToProto(linear.role));
      shape->set_input(linear.input);
    }
  }
  for (const DenseTensor& tensor : inventory.dense) {
    v1::InventoryTensor* out = proto.add_dense();
    out->set_name(tensor.name);
    out->set_dtype(std::string(NameOf(tensor.dtype)));
    for (int64_t dimension : tensor.shape) out->add_shape(dimension);
    out->set_part(PartOf(tensor.place));
    out->set_layer(tensor.place.layer);
    out->set_bias_of(tensor.bias_of);
  }
  proto.set_hidden_size(inventory.hidden_size);
  proto.set_intermediate_size(inventory.intermediate_size);
  proto.set_vocab_size(inventory.vocab_size);
  proto.set_num_heads(inventory.num_heads);
  proto.set_num_kv_heads(inventory.num_kv_heads);
  proto.set_head_dim(inventory.head_dim);
  proto.set_max_positions(inventory.max_positions);
  proto.set_gguf_other_bytes(inventory.gguf_other_bytes);
  proto.set_gguf_refusal(inventory.gguf_refusal);
  return proto;
}

absl::StatusOr<ModelInventory> InventoryOf(const v1::Inventory& inventory) {
  ModelInventory model;
  auto dtype = [](const std::string& name) -> absl::StatusOr<DType> {
    const std::optional<DType> found = DTypeFromName(name);
    if (!found) return Failure(reasons::kDtypeUnknown, absl::StrCat("dtype \"", name, "\""));
    return *found;
  };
  model.num_layers = inventory.num_layers();
  LWQ_ASSIGN_OR_RETURN(model.weight_dtype, dtype(inventory.weight_dtype()));
  for (const v1::InventoryUnit& unit : inventory.units()) {
    AllocationUnit& u = model.units.emplace_back();
    u.name = unit.name();
    u.kind = unit.kind();
    LWQ_ASSIGN_OR_RETURN(u.place, PlaceOf(unit.part(), unit.layer(), unit.name()));
    for (const v1::InventoryLinear& linear : unit.linears()) {
      u.linears.push_back({linear.module(), linear.out_features(), linear.in_features(),
                           linear.name(), RoleOf(linear.role()), linear.input()});
    }
  }
  for (const v1::InventoryTensor& tensor : inventory.dense()) {
    DenseTensor& t = model.dense.emplace_back();
    t.name = tensor.name();
    t.bias_of = tensor.bias_of();
    LWQ_ASSIGN_OR_RETURN(t.place, PlaceOf(tensor.part(), tensor.layer(), tensor.name()));
    LWQ_ASSIGN_OR_RETURN(t.dtype, dtype(tensor.dtype()));
    t.shape.assign(tensor.shape().begin(), tensor.shape().end());
  }
  model.hidden_size = inventory.hidden_size();
  model.intermediate_size = inventory.intermediate_size();
  model.vocab_size = inventory.vocab_size();
  model.num_heads = inventory.num_heads();
  model.num_kv_heads = inventory.num_kv_heads();
  model.head_dim = inventory.head_dim();
  model.max_positions = inventory.max_positions();
  model.gguf_other_bytes = inventory.gguf_other_bytes();
  model.gguf_refusal = inventory.gguf_refusal();
  return model;
}

absl::StatusOr<Budget> BudgetOf(const v1::Budget& budget, const ModelInventory& inventory) {
  Budget result;
  switch (budget.kind_case()) {
    case v1::Budget::kFileBytes:
      result.kind = Budget::Kind::kFileBytes;
      result.bytes = budget.file_bytes();
      break;
    case v1::Budget::kBitsPerWeight:
      result.kind = Budget::Kind::kBitsPerWeight;
      result.bits_per_weight = budget.bits_per_weight();
      if (!(result.bits_per_weight > 0 && result.bits_per_weight <= kMaxBitsPerWeight)) {
        return Failure(reasons::kBudgetInvalid,
                       absl::StrCat("bits_per_weight ", result.bits_per_weight,
                                    " is not above 0 and at most ", kMaxBitsPerWeight));
      }
      return result;
    case v1::Budget::kSourcePercent:
      result.kind = Budget::Kind::kShareOfSource;
      result.percent = budget.source_percent();
      if (!(result.percent > 0 && result.percent <= 100)) {
        return Failure(reasons::kBudgetInvalid, absl::StrCat("source_percent ", result.percent,
                                                             " is not above 0 and at most 100"));
      }
      return result;
    case v1::Budget::kRecipe: {
      if (inventory.artifact_format != &ArtifactFormatDefs::gguf) {
        return Failure(reasons::kBudgetInvalid,
                       absl::StrCat("the budget ", budget.recipe(),
                                    " is a recipe of "
                                    "llama.cpp's: it needs the profile llama.cpp"));
      }
      LWQ_ASSIGN_OR_RETURN(const Plan plan, GgufRecipePlan(inventory, budget.recipe()));
      result.kind = Budget::Kind::kFileBytes;
      result.bytes = WeightFileBytes(inventory, plan, 0);
      break;
    }
    case v1::Budget::kDevice:
      result.kind = Budget::Kind::kDeviceBytes;
      result.bytes = budget.device().bytes();
      result.context_length = budget.device().context_length();
      result.batch_size = std::max<int64_t>(1, budget.device().batch_size());
      if (result.context_length < 0 || result.context_length > (int64_t{1} << 32) ||
          result.batch_size > (int64_t{1} << 20)) {
        return Failure(reasons::kBudgetInvalid,
                       absl::StrCat("device budget with context_length ", result.context_length,
                                    " and batch_size ", result.batch_size));
      }
      break;
    default:
      return Failure(
          reasons::kBudgetInvalid,
          "no budget: set file_bytes, bits_per_weight, source_percent, device or recipe");
  }
  if (result.bytes <= 0) {
    return Failure(reasons::kBudgetInvalid,
                   absl::StrCat("a budget of ", result.bytes, " bytes is not positive"));
  }
  return result;
}

v1::Budget BudgetToProto(const Budget& budget) {
  v1::Budget result;
  switch (budget.kind) {
    case Budget::Kind::kFileBytes:
      result.set_file_bytes(budget.bytes);
      break;
    case Budget::Kind::kBitsPerWeight:
      result.set_bits_per_weight(budget.bits_per_weight);
      break;
    case Budget::Kind::kShareOfSource:
      result.set_source_percent(budget.percent);
      break;
    case Budget::Kind::kDeviceBytes:
      result.mutable_device()->set_bytes(budget.bytes);
      result.mutable_device()->set_context_length(budget.context_length);
      result.mutable_device()->set_batch_size(budget.batch_size);
      break;
  }
  return result;
}

absl::StatusOr<ModelInventory> InventoryFor(const v1::QuantizeSpec& spec,
                                            ModelInventory inventory) {
  LWQ_ASSIGN_OR_RETURN(const ProfileDef* profile, FindProfile(spec.profile()));
  LWQ_RETURN_IF_ERROR(profile->artifact_format->check(inventory));
  return PlannedAs(*profile->artifact_format, std::move(inventory));
}

absl::StatusOr<ModelInventory> InventoryFor(const v1::PlanSummary& plan, ModelInventory inventory) {
  LWQ_ASSIGN_OR_RETURN(const ArtifactFormatDef* format, FindArtifactFormat(plan.artifact_format()));
  return PlannedAs(*format, std::move(inventory));
}

absl::StatusOr<Menu> MenuOf(const v1::QuantizeSpec& spec, const ModelInventory& inventory) {
  LWQ_ASSIGN_OR_RETURN(const ProfileDef* profile, FindProfile(spec.profile()));
  MenuRequest request;
  request.formats.assign(spec.formats().begin(), spec.formats().end());
  if (spec.group_sizes_size() > 0) {
    request.group_sizes.assign(spec.group_sizes().begin(), spec.group_sizes().end());
  }
  request.symmetric = !spec.asymmetric();
  request.quantize_head = spec.quantize_head();
  return BuildMenu(inventory, *profile, request);
}

std::string FormatId(const WeightFormat* format) { return format == nullptr ? "" : format->id(); }

absl::StatusOr<const WeightFormat*> FormatOf(absl::string_view id) {
  if (id.empty()) return static_cast<const WeightFormat*>(nullptr);
  return FindWeightFormat(id);
}

v1::PlanSummary PlanToProto(const Plan& plan, const ModelInventory& inventory) {
  v1::PlanSummary proto;
  proto.set_artifact_format(std::string(inventory.artifact_format->name));
  for (size_t u = 0; u < inventory.units.size(); ++u) {
    v1::UnitChoice& choice = *proto.add_units();
    choice.set_unit(inventory.units[u].name);
    choice.set_layer(RecordedLayer(inventory.units[u].place));
    choice.set_format(FormatId(plan[u]));
  }
  return proto;
}

absl::StatusOr<Plan> PlanOf(const v1::PlanSummary& plan, const ModelInventory& inventory) {
  if (plan.units_size() != static_cast<int>(inventory.units.size())) {
    return InvalidFailure(reasons::kPlanMismatch.name,
                          absl::StrCat("the plan has ", plan.units_size(), " units, the model ",
                                       inventory.units.size()));
  }
  Plan formats;
  for (int i = 0; i < plan.units_size(); ++i) {
    const v1::UnitChoice& choice = plan.units(i);
    if (choice.unit() != inventory.units[i].name) {
      return InvalidFailure(reasons::kPlanMismatch.name,
                            absl::StrCat("unit ", i, " of the plan is ", choice.unit(),
                                         ", of the model ", inventory.units[i].name));
    }
    LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FormatOf(choice.format()));
    formats.push_back(format);
  }
  LWQ_RETURN_IF_ERROR(CheckKept(inventory, formats));
  return formats;
}

std::map<int, std::vector<v1::UnitFormats>> QuantizedFormats(const Menu& menu,
                                                             const ModelInventory& inventory) {
  std::map<int, std::vector<v1::UnitFormats>> units;
  for (size_t u = 0; u < menu.units.size(); ++u) {
    v1::UnitFormats unit;
    unit.set_unit(inventory.units[u].name);
    for (const WeightFormat* format : menu.units[u].formats) {
      if (!format->dense()) unit.add_formats(format->id());
    }
    if (unit.formats_size() == 0) continue;
    units[RecordedLayer(inventory.units[u].place)].push_back(std::move(unit));
  }
  return units;
}

}  // namespace lwq
