#include "worker/engine/artifact/gptq_config.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/gptq.h"
#include "worker/engine/artifact/module_patterns.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxGroupSize = 1 << 20;
// Of checkpoint_format: how zero points are stored (gptq.h).
constexpr char kV1[] = "gptq", kV2[] = "gptq_v2";

const GridFormat* GridOf(const WeightFormat* format) {
  return format == nullptr ? nullptr : format->grid();
}

// What a linear is without a rule. vLLM starts with 4 or 8 bits only, and then those of most
// weights; a plan that has neither and one format alone says that one.
const GridFormat* BaseFormat(const ModelInventory& model, const Plan& plan) {
  std::map<const GridFormat*, int64_t> weights;
  for (size_t u = 0; u < plan.size(); ++u) {
    if (GridOf(plan[u]) != nullptr) weights[GridOf(plan[u])] += model.units[u].num_weights();
  }
  if (weights.size() == 1) return weights.begin()->first;
  const GridFormat* base = nullptr;
  for (const WeightFormat* format : plan) {  // in the plan's order: the map's is that of addresses
    const GridFormat* grid = GridOf(format);
    if (grid == nullptr || (grid->bits() != 4 && grid->bits() != 8)) continue;
    if (base == nullptr || weights[grid] > weights[base]) base = grid;
  }
  if (base != nullptr || weights.empty()) return base;
  return GridFormat::Find(4, 128, true);
}

int64_t GroupField(const GridFormat& format) {
  return format.group_size() == 0 ? -1 : format.group_size();
}

// A rule for every kind of unit of one format, dense ones (null) first: GPTQModel looks at those
// first wherever they stand, others in order.
void AddRules(const ModelInventory& model, const Plan& plan, const GridFormat* format,
              Json& rules) {
  const ModulePatterns found =
      PatternsOf(model, [&](size_t u) { return plan[u] != nullptr && GridOf(plan[u]) == format; });
  Json value = Json::object();
  if (format != nullptr) {
    value = {{"bits", format->bits()}, {"group_size", GroupField(*format)}};
  }
  const char* sign = format == nullptr ? "-:" : "+:";
  for (const std::string& pattern : found.patterns) rules[absl::StrCat(sign, pattern)] = value;
  for (const std::string& module : found.modules) {
    rules[absl::StrCat(sign, "^", EscapeRegex(module), "$")] = value;
  }
}

bool QuantizesHead(const ModelInventory& model, const Plan& plan) {
  for (size_t u = 0; u < plan.size(); ++u) {
    if (model.units[u].place == Place::Head() && GridOf(plan[u]) != nullptr) return true;
  }
  return false;
}

absl::Status Unsupported(absl::string_view where, absl::string_view what) {
  return Failure(reasons::kQuantMethodUnsupported,
                 absl::StrCat(where, ": quantization_config (gptq) ", what,
                              "; lwq reads gptq and gptq_v2 of 2, 3, 4 and 8 bits in int32 "
                              "words"));
}

std::string TextOr(const Json& object, const char* key, absl::string_view otherwise) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return std::string(otherwise);
  return found->get<std::string>();
}

// What `object` says of width, group size and zero points, and `base` (or null) where it does not.
absl::StatusOr<const GridFormat*> ReadFormat(const Json& object, const GridFormat* base,
                                             absl::string_view where) {
  const auto number = [&](const char* key, int64_t otherwise) -> int64_t {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return otherwise;
    return found->is_number_integer() ? found->get<int64_t>() : INT64_MIN;
  };
  const int64_t bits = number("bits", base == nullptr ? INT64_MIN : base->bits());
  if (!IsGptqWidth(bits)) {
    return Unsupported(where, "has no bits of 2, 3, 4 or 8");
  }
  int64_t group = number("group_size", base == nullptr ? 128 : GroupField(*base));
  if (group == -1) group = 0;
  if (group < 0 || group > kMaxGroupSize) return Unsupported(where, "has no sensible group_size");
  bool symmetric = base == nullptr || base->symmetric();
  if (const auto found = object.find("sym"); found != object.end() && found->is_boolean()) {
    symmetric = found->get<bool>();
  }
  if (const std::string dtype = TextOr(object, "pack_dtype", "int32"); dtype != "int32") {
    return Unsupported(where, absl::StrCat("packs into ", dtype));
  }
  return GridFormat::Find(static_cast<int>(bits), group, symmetric);
}

absl::Status ReadRules(const Json& rules, const GridFormat* base, absl::string_view where,
                       std::vector<const WeightFormat*>& formats) {
  if (rules.is_null()) return absl::OkStatus();
  if (!rules.is_object()) return Unsupported(where, "has a dynamic that is not an object");
  for (const auto& rule : rules.items()) {
    if (absl::StartsWith(rule.key(), "-:")) continue;  // dense, as its tensors say
    if (!rule.value().is_object()) return Unsupported(where, "has a rule that is not an object");
    LWQ_ASSIGN_OR_RETURN(const GridFormat* format, ReadFormat(rule.value(), base, where));
    if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
      formats.push_back(format);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string GptqConfigJson(const ModelInventory& model, const Plan& plan) {
  const GridFormat* base = BaseFormat(model, plan);
  if (base == nullptr) return "";
  Json rules = Json::object();
  AddRules(model, plan, nullptr, rules);
  for (const std::string& router : RouterModules(model)) {
    rules[absl::StrCat("-:^", EscapeRegex(router), "$")] = Json::object();
  }
  std::vector<const GridFormat*> done;
  for (const WeightFormat* format : plan) {
    const GridFormat* grid = GridOf(format);
    if (grid == nullptr || std::find(done.begin(), done.end(), grid) != done.end()) continue;
    done.push_back(grid);
    if (grid != base) AddRules(model, plan, grid, rules);
  }
  Json config = {{"quant_method", "gptq"},
                 {"checkpoint_format", "gptq"},
                 {"bits", base->bits()},
                 {"group_size", GroupField(*base)},
                 {"sym", true},
                 {"desc_act", false},
                 {"lm_head", QuantizesHead(model, plan)},
                 {"pack_dtype", "int32"}};
  if (!rules.empty()) config["dynamic"] = std::move(rules);
  return config.dump();
}

absl::StatusOr<DeclaredQuantization> ReadGptqConfig(absl::string_view dictionary,
                                                    absl::string_view where) {
  const Json config =
      Json::parse(dictionary.begin(), dictionary.end(), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Unsupported(where, "is not an object");
  const std::string layout = TextOr(config, "checkpoint_format", TextOr(config, "format", kV1));
  if (layout != kV1 && layout != kV2) {
    return Unsupported(where, absl::StrCat("has the checkpoint_format ", layout));
  }
  LWQ_ASSIGN_OR_RETURN(const GridFormat* base, ReadFormat(config, nullptr, where));
  DeclaredQuantization declared{layout == kV1 ? &GptqCoding() : &GptqV2Coding(), {base}};
  const auto rules = config.find("dynamic");
  if (rules != config.end()) {
    LWQ_RETURN_IF_ERROR(ReadRules(*rules, base, where, declared.formats));
  }
  return declared;
}

}  // namespace lwq
