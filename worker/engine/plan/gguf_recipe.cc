// After llama_tensor_get_type of llama.cpp (src/llama-quant.cpp): a type for most tensors, more for
// those that its authors found to matter, and another where a row is not whole blocks.
#include "worker/engine/plan/gguf_recipe.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "worker/engine/format/gguf.h"

namespace lwq {
namespace {

using enum GgufType;

// Layers that get more: the first and last eighth, and every third of the others.
bool GetsMore(int layer, int num_layers) {
  return layer < num_layers / 8 || layer >= 7 * num_layers / 8 || (layer - num_layers / 8) % 3 == 2;
}

struct Tensor {
  int layer = 0;
  int num_layers = 0;
  int queries_per_key = 1;
  int num_experts = 0;
};

// What a recipe gives to a kind of tensor.
using Rule = GgufType (*)(const Tensor&);

struct Recipe {
  absl::string_view name;
  GgufType most;
  Rule value = nullptr;  // of attn_v; null: as most
  Rule down = nullptr;   // of ffn_down
  GgufType output_projection = most;
  GgufType fused_attention = most;  // qkv in one tensor
  // Of models of eight experts, in which attention is a small part: attn_output. Their attn_k and
  // attn_v are Q8_0 in every recipe.
  GgufType output_beside_8_experts = most;
};

GgufType Value2(const Tensor& t) { return t.queries_per_key >= 4 ? kQ4_K : kQ3_K; }
GgufType Down2(const Tensor&) { return kQ3_K; }
GgufType Value3M(const Tensor& t) { return t.layer < 2 ? kQ5_K : kQ4_K; }
GgufType Down3M(const Tensor& t) { return t.layer < t.num_layers / 16 ? kQ5_K : kQ4_K; }
GgufType Always5(const Tensor&) { return kQ5_K; }
GgufType ValueIq3(const Tensor& t) { return t.queries_per_key >= 4 ? kQ4_K : kIQ3_S; }
GgufType ValueIq4(const Tensor& t) { return t.queries_per_key >= 4 ? kQ5_K : kIQ4_XS; }
GgufType Value4S(const Tensor& t) { return t.layer < 4 ? kQ5_K : kQ4_K; }
GgufType Down4S(const Tensor& t) { return t.layer < t.num_layers / 8 ? kQ5_K : kQ4_K; }
GgufType More4(const Tensor& t) { return GetsMore(t.layer, t.num_layers) ? kQ6_K : kQ4_K; }
GgufType More5(const Tensor& t) { return GetsMore(t.layer, t.num_layers) ? kQ6_K : kQ5_K; }

constexpr Recipe kRecipes[] = {
    {.name = "IQ3_S", .most = kIQ3_S, .value = &ValueIq3, .output_beside_8_experts = kQ5_K},
    {.name = "IQ4_XS", .most = kIQ4_XS, .value = &ValueIq4, .output_beside_8_experts = kQ5_K},
    {.name = "Q2_K",
     .most = kQ2_K,
     .value = &Value2,
     .down = &Down2,
     .output_projection = kQ3_K,
     .output_beside_8_experts = kQ5_K},
    {.name = "Q3_K_L",
     .most = kQ3_K,
     .value = &Always5,
     .down = &Always5,
     .output_projection = kQ5_K,
     .fused_attention = kQ4_K},
    {.name = "Q3_K_M",
     .most = kQ3_K,
     .value = &Value3M,
     .down = &Down3M,
     .output_projection = kQ4_K,
     .fused_attention = kQ4_K,
     .output_beside_8_experts = kQ5_K},
    {.name = "Q3_K_S", .most = kQ3_K, .output_beside_8_experts = kQ5_K},
    {.name = "Q4_K_M",
     .most = kQ4_K,
     .value = &More4,
     .down = &More4,
     .fused_attention = kQ5_K,
     .output_beside_8_experts = kQ5_K},
    {.name = "Q4_K_S",
     .most = kQ4_K,
     .value = &Value4S,
     .down = &Down4S,
     .output_beside_8_experts = kQ5_K},
    {.name = "Q5_K_M", .most = kQ5_K, .value = &More5, .down = &More5, .fused_attention = kQ6_K},
    {.name = "Q5_K_S", .most = kQ5_K},
    {.name = "Q6_K", .most = kQ6_K},
    {.name = "Q8_0", .most = kQ8_0},
};

// What stands in for a type whose blocks do not fill the rows.
GgufType Fitting(GgufType type, int64_t in_features) {
  if (in_features % DefOf(type).block_size == 0) return type;
  switch (type) {
    case kQ4_K:
      return kQ5_0;
    case kQ5_K:
      return kQ5_1;
    case kQ6_K:
      return kQ8_0;
    default:
      return kIQ4_NL;
  }
}

// Llama and Qwen2 of 80 layers: eight heads share a value, so that attn_v is small.
bool Is70B(const Tensor& tensor) { return tensor.num_layers == 80; }

GgufType InLayer(const Recipe& recipe, LinearRole role, const Tensor& tensor) {
  const auto by = [&](Rule rule) { return rule == nullptr ? recipe.most : rule(tensor); };
  const bool beside_8_experts = tensor.num_experts == 8;
  switch (role) {
    case LinearRole::kKey:
      return beside_8_experts ? kQ8_0 : recipe.most;
    case LinearRole::kValue: {
      if (beside_8_experts) return kQ8_0;
      const GgufType type = by(recipe.value);
      return Is70B(tensor) && (type == kQ3_K || type == kQ4_K) ? kQ5_K : type;
    }
    case LinearRole::kDown:
      return by(recipe.down);
    case LinearRole::kOutput:
      return beside_8_experts ? recipe.output_beside_8_experts : recipe.output_projection;
    case LinearRole::kQueryKeyValue:
      return recipe.fused_attention;
    default:
      return recipe.most;
  }
}

// How many linears a stack of experts has; 0: the model has none.
int NumExperts(const ModelInventory& model) {
  for (const AllocationUnit& unit : model.units) {
    if (!unit.of_experts()) continue;
    const std::string& name = unit.linears.front().name;
    return static_cast<int>(
        std::count_if(unit.linears.begin(), unit.linears.end(),
                      [&](const LinearShape& linear) { return linear.name == name; }));
  }
  return 0;
}

absl::Status RoleIsMissing(const AllocationUnit& unit) {
  return PreconditionFailure(
      reasons::kModelInvalid.name,
      absl::StrCat("a recipe goes by what each linear does, and the model's manifest does not say "
                   "that of ",
                   unit.name,
                   ": an earlier version of lwq made it; register the model again, under another "
                   "model_id"));
}

}  // namespace

std::vector<std::string> GgufRecipeNames() {
  std::vector<std::string> names;
  for (const Recipe& recipe : kRecipes) names.emplace_back(recipe.name);
  return names;
}

absl::StatusOr<std::vector<const WeightFormat*>> GgufRecipePlan(const ModelInventory& model,
                                                                absl::string_view name) {
  const Recipe* recipe = nullptr;
  for (const Recipe& one : kRecipes) {
    if (one.name == name) recipe = &one;
  }
  if (recipe == nullptr) {
    return Failure(
        reasons::kBudgetInvalid,
        absl::StrCat("llama.cpp has no recipe \"", name.substr(0, 80),
                     "\" that lwq knows; it knows ", absl::StrJoin(GgufRecipeNames(), ", ")));
  }
  const int num_experts = NumExperts(model);
  bool has_head = false;
  for (const AllocationUnit& unit : model.units) has_head |= unit.place == Place::Head();
  std::vector<const WeightFormat*> plan;
  for (const AllocationUnit& unit : model.units) {
    const bool to_logits = unit.place == Place::Head() || !(has_head || unit.place.in_layer());
    GgufType type = recipe->most;
    if (to_logits) {
      type = type == kQ8_0 ? kQ8_0 : kQ6_K;
    } else if (unit.place.in_layer()) {
      const LinearRole role = unit.linears.front().role;
      if (role == LinearRole::kUnknown) return RoleIsMissing(unit);
      type = InLayer(*recipe, role,
                     {.layer = unit.place.layer,
                      .num_layers = model.num_layers,
                      .queries_per_key = model.num_heads / std::max(1, model.num_kv_heads),
                      .num_experts = num_experts});
    }
    int64_t in_features = 0;
    for (const LinearShape& linear : unit.linears) in_features = linear.in_features;
    type =
        to_logits && in_features % DefOf(type).block_size != 0 ? kQ8_0 : Fitting(type, in_features);
    const GgufFormat* format = GgufFormat::Find(DefOf(type));
    const bool fits = format->Accepts(0, in_features).ok();
    plan.push_back(fits ? static_cast<const WeightFormat*>(format) : DenseFormat());
  }
  return plan;
}

}  // namespace lwq
