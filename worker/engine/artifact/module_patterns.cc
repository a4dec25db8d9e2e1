#include "worker/engine/artifact/module_patterns.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace lwq {
namespace {

// A pattern for any of `names` ("self_attn.q_proj", ...), with the modules that all share in front.
std::string AnyOf(const std::vector<std::string>& names) {
  const std::string& first = names.front();
  if (names.size() == 1) return EscapeRegex(first);
  size_t shared = first.rfind('.') + 1;  // 0 where there is no dot
  const auto shares = [&](const std::string& name) {
    return name.compare(0, shared, first, 0, shared) == 0;
  };
  while (shared > 0 && !std::all_of(names.begin(), names.end(), shares)) {
    shared = shared == 1 ? 0 : first.rfind('.', shared - 2) + 1;
  }
  const auto add_rest = [&](std::string* out, const std::string& name) {
    out->append(EscapeRegex(name.substr(shared)));
  };
  return absl::StrCat(EscapeRegex(first.substr(0, shared)),
                      "(?:", absl::StrJoin(names, "|", add_rest), ")");
}

// The linears of all experts: by their names, by those that vLLM gives to every family's, and the
// module that fuses them all.
std::string PatternOfExperts(const AllocationUnit& unit) {
  std::vector<std::string> names;
  const auto add = [&names](absl::string_view name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
  };
  for (const LinearShape& linear : unit.linears) {
    absl::string_view name = linear.name;
    absl::ConsumePrefix(&name, absl::StrCat(unit.kind, "."));
    add(name);
  }
  for (const char* name : {"gate_proj", "up_proj", "down_proj"}) add(name);
  return absl::StrCat(EscapeRegex(unit.kind), "(?:\\.\\d+\\.", AnyOf(names), ")?");
}

// What the family calls its list of layers: "layers".
absl::string_view LayersOf(const AllocationUnit& unit) {
  return absl::string_view(unit.name).substr(0, unit.name.find('.'));
}

// What matches the linears of a unit inside its layer: shard names and the fused one.
std::string PatternInLayer(const AllocationUnit& unit) {
  if (unit.of_experts()) return PatternOfExperts(unit);
  std::vector<std::string> names;
  for (const LinearShape& linear : unit.linears) names.push_back(linear.name);
  if (std::find(names.begin(), names.end(), unit.kind) == names.end()) names.push_back(unit.kind);
  return AnyOf(names);
}

}  // namespace

std::string EscapeRegex(absl::string_view text) {
  return absl::StrReplaceAll(text, {{".", "\\."}});
}

ModulePatterns PatternsOf(const ModelInventory& model,
                          absl::FunctionRef<bool(size_t unit)> wanted) {
  std::vector<std::pair<std::string, std::vector<int>>> layers_of;
  ModulePatterns found;
  absl::string_view layers_name;
  for (size_t i = 0; i < model.units.size(); ++i) {
    if (!wanted(i)) continue;
    const AllocationUnit& unit = model.units[i];
    if (!unit.place.in_layer()) {  // the head: its exact name
      for (const LinearShape& linear : unit.linears) found.modules.push_back(linear.module);
      continue;
    }
    const std::string pattern = PatternInLayer(unit);
    layers_name = LayersOf(unit);
    auto entry = std::find_if(layers_of.begin(), layers_of.end(),
                              [&](const auto& item) { return item.first == pattern; });
    if (entry == layers_of.end()) entry = layers_of.insert(layers_of.end(), {pattern, {}});
    entry->second.push_back(unit.place.layer);
  }
  for (const auto& [pattern, layers] : layers_of) {
    found.patterns.push_back(absl::StrCat(
        "^(?:.*\\.)?", layers_name, "\\.(?:", absl::StrJoin(layers, "|"), ")\\.", pattern, "$"));
  }
  return found;
}

std::vector<std::string> RouterModules(const ModelInventory& model) {
  std::vector<std::string> modules;
  for (const DenseTensor& tensor : model.dense) {
    if (tensor.place.in_layer() && tensor.shape.size() == 2) {
      modules.emplace_back(absl::StripSuffix(tensor.name, ".weight"));
    }
  }
  return modules;
}

}  // namespace lwq
