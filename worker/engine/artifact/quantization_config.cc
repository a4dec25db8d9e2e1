// Writing and reading of quantization_config. docs/formats/compressed_tensors.md.
#include "worker/engine/artifact/quantization_config.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/format/grid.h"
#include "worker/engine/io/json_file.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kMethod[] = "compressed-tensors";
constexpr char kFormat[] = "pack-quantized";
// The library whose bit stream this is: from this version on, widths that do not divide 32 are
// dense.
constexpr char kLibraryVersion[] = "0.18.0";
constexpr uint64_t kMaxGroupSize = 1 << 20;

std::string EscapeRegex(absl::string_view text) {
  return absl::StrReplaceAll(text, {{".", "\\."}});
}

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

// What matches the linears of a unit inside its layer: shard names and the fused one.
std::string PatternInLayer(const AllocationUnit& unit) {
  if (unit.of_experts()) return PatternOfExperts(unit);
  std::vector<std::string> names;
  for (const LinearShape& linear : unit.linears) names.push_back(linear.name);
  if (std::find(names.begin(), names.end(), unit.kind) == names.end()) names.push_back(unit.kind);
  return AnyOf(names);
}

// Targets of the units for which `wanted` says so: one pattern a kind of unit, in model order.
template <typename Wanted>
std::vector<std::string> Targets(const ModelInventory& model, Wanted wanted) {
  std::vector<std::pair<std::string, std::vector<int>>> layers_of;
  std::vector<std::string> exact;
  for (size_t i = 0; i < model.units.size(); ++i) {
    if (!wanted(i)) continue;
    const AllocationUnit& unit = model.units[i];
    if (!unit.place.in_layer()) {  // the head: its exact name
      for (const LinearShape& linear : unit.linears) exact.push_back(linear.module);
      continue;
    }
    const std::string pattern = PatternInLayer(unit);
    auto entry = std::find_if(layers_of.begin(), layers_of.end(),
                              [&](const auto& item) { return item.first == pattern; });
    if (entry == layers_of.end()) entry = layers_of.insert(layers_of.end(), {pattern, {}});
    entry->second.push_back(unit.place.layer);
  }
  std::vector<std::string> targets;
  for (const auto& [pattern, layers] : layers_of) {
    targets.push_back(absl::StrCat("re:^(?:.*\\.)?layers\\.(?:", absl::StrJoin(layers, "|"), ")\\.",
                                   pattern, "$"));
  }
  targets.insert(targets.end(), exact.begin(), exact.end());
  return targets;
}

Json GroupJson(const GridFormat& format, const std::vector<std::string>& targets) {
  Json weights = {{"num_bits", format.bits()},
                  {"type", "int"},
                  {"symmetric", format.symmetric()},
                  {"strategy", format.group_size() == 0 ? "channel" : "group"}};
  if (format.group_size() != 0) weights["group_size"] = format.group_size();
  weights["dynamic"] = false;
  return {{"targets", targets},
          {"weights", std::move(weights)},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", kFormat}};
}

std::string GroupName(const GridFormat& format) {
  const std::string group =
      format.group_size() == 0 ? "channel" : absl::StrCat("g", format.group_size());
  return absl::StrCat("group_w", format.bits(), "_", group, format.symmetric() ? "" : "_asym");
}

bool HasHeadUnit(const ModelInventory& model) {
  return std::any_of(model.units.begin(), model.units.end(),
                     [](const AllocationUnit& unit) { return unit.place == Place::Head(); });
}

Json QuantizationConfig(const ModelInventory& model, const Plan& plan) {
  std::vector<const GridFormat*> distinct;
  for (const WeightFormat* format : plan) {
    if (format == nullptr || format->grid() == nullptr) continue;
    if (std::find(distinct.begin(), distinct.end(), format) == distinct.end()) {
      distinct.push_back(format->grid());
    }
  }
  if (distinct.empty()) return nullptr;
  std::sort(distinct.begin(), distinct.end(), [](const GridFormat* a, const GridFormat* b) {
    return std::tuple(a->bits(), a->group_size(), a->symmetric()) <
           std::tuple(b->bits(), b->group_size(), b->symmetric());
  });
  Json groups = Json::object();
  for (const GridFormat* format : distinct) {
    groups[GroupName(*format)] =
        GroupJson(*format, Targets(model, [&](size_t i) { return plan[i] == format; }));
  }
  std::vector<std::string> ignore =
      Targets(model, [&](size_t i) { return plan[i] != nullptr && plan[i]->dense(); });
  for (const DenseTensor& tensor : model.dense) {  // routers of experts
    if (tensor.place.in_layer() && tensor.shape.size() == 2) {
      ignore.emplace_back(absl::StripSuffix(tensor.name, ".weight"));
    }
  }
  if (!HasHeadUnit(model)) ignore.insert(ignore.begin(), "lm_head");  // a tied head stays dense
  return {{"quant_method", kMethod},
          {"format", kFormat},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", kLibraryVersion},
          {"config_groups", std::move(groups)}};
}

absl::Status Unsupported(absl::string_view where, absl::string_view what) {
  return InvalidFailure("QUANT_METHOD_UNSUPPORTED",
                        absl::StrCat(where, ": quantization_config ", what,
                                     "; lwq reads dense models and compressed-tensors "
                                     "pack-quantized ones"));
}

std::string StringOr(const Json& object, const char* key, absl::string_view otherwise) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return std::string(otherwise);
  return found->get<std::string>();
}

absl::StatusOr<const WeightFormat*> ReadGroup(const Json& group, const std::string& global_format,
                                              absl::string_view where) {
  if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) {
    return Unsupported(where, "has a group without weights");
  }
  const std::string format = StringOr(group, "format", global_format);
  if (format != kFormat) return Unsupported(where, absl::StrCat("has the format ", format));
  for (const char* key : {"input_activations", "output_activations"}) {
    if (group.contains(key) && !group[key].is_null()) {
      return Unsupported(where, absl::StrCat("quantizes ", key));
    }
  }
  const Json& weights = group["weights"];
  const std::string strategy = StringOr(weights, "strategy", "");
  const std::string order = StringOr(weights, "actorder", "");
  const bool bits_ok = weights.contains("num_bits") && weights["num_bits"].is_number_unsigned() &&
                       weights["num_bits"].get<uint64_t>() >= 1 &&
                       weights["num_bits"].get<uint64_t>() <= 8;
  if (!bits_ok || StringOr(weights, "type", "int") != "int" ||
      (strategy != "group" && strategy != "channel") || order == "group") {
    return Unsupported(where,
                       "has weights that are not integers of 1 to 8 bits by group or channel "
                       "without stored order");
  }
  const bool symmetric = !weights.contains("symmetric") || !weights["symmetric"].is_boolean() ||
                         weights["symmetric"].get<bool>();
  int64_t group_size = 0;
  if (strategy == "group") {
    if (!weights.contains("group_size") || !weights["group_size"].is_number_unsigned() ||
        weights["group_size"].get<uint64_t>() - 1 >= kMaxGroupSize) {
      return Unsupported(where, "has the strategy group without a sensible group_size");
    }
    group_size = weights["group_size"].get<int64_t>();
  }
  return GridFormat::Find(weights["num_bits"].get<int>(), group_size, symmetric);
}

}  // namespace

std::string QuantizationConfigJson(const ModelInventory& model, const Plan& plan) {
  const Json config = QuantizationConfig(model, plan);
  return config.is_null() ? "" : config.dump();
}

absl::StatusOr<std::string> ArtifactConfigJson(absl::string_view source_config,
                                               const ModelInventory& model, const Plan& plan) {
  LWQ_RETURN_IF_ERROR(CheckJson(source_config, {.reason = "CONFIG_INVALID"}, "config.json"));
  Json config = Json::parse(source_config.begin(), source_config.end(), nullptr,
                            /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return InvalidFailure("CONFIG_INVALID", "config.json: an object is expected");
  }
  config.erase("quantization_config");
  Json quantization = QuantizationConfig(model, plan);
  if (!quantization.is_null()) config["quantization_config"] = std::move(quantization);
  return config.dump(2) + "\n";
}

absl::StatusOr<std::vector<const WeightFormat*>> ReadQuantizationConfig(
    absl::string_view config_json, absl::string_view where) {
  LWQ_RETURN_IF_ERROR(CheckJson(config_json, {.reason = "CONFIG_INVALID"}, where));
  const Json config = Json::parse(config_json.begin(), config_json.end(), nullptr,
                                  /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return InvalidFailure("CONFIG_INVALID", absl::StrCat(where, ": an object is expected"));
  }
  std::vector<const WeightFormat*> formats;
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return formats;
  if (!found->is_object()) return Unsupported(where, "is not an object");
  const std::string method = StringOr(*found, "quant_method", "(none)");
  if (method != kMethod) return Unsupported(where, absl::StrCat("has the quant_method ", method));
  const auto groups = found->find("config_groups");
  if (groups == found->end() || !groups->is_object() || groups->empty()) {
    return Unsupported(where, "has no config_groups");
  }
  const std::string format = StringOr(*found, "format", kFormat);
  for (const auto& group : groups->items()) {
    LWQ_ASSIGN_OR_RETURN(const WeightFormat* read, ReadGroup(group.value(), format, where));
    formats.push_back(read);
  }
  return formats;
}

}  // namespace lwq
