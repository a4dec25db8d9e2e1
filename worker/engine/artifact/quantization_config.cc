#include "worker/engine/artifact/quantization_config.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/compressed_tensors.h"
#include "worker/engine/artifact/gptq_config.h"
#include "worker/engine/artifact/module_patterns.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/io/fp8_blocks.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kMethod[] = "compressed-tensors";
constexpr char kGptqMethod[] = "gptq";
constexpr char kFp8Method[] = "fp8";
constexpr char kGptqSideFile[] = "quantize_config.json";
constexpr char kFormat[] = "pack-quantized";
constexpr char kIntegerFormat[] = "int-quantized";
constexpr char kFloatFormat[] = "float-quantized";
constexpr char kMixedFormat[] = "mixed-precision";  // each group says its own
// The library whose bit stream this is: from this version on, widths that do not divide 32 are
// dense.
constexpr char kLibraryVersion[] = "0.18.0";
constexpr uint64_t kMaxGroupSize = 1 << 20;

std::vector<std::string> Targets(const ModelInventory& model,
                                 absl::FunctionRef<bool(size_t unit)> wanted) {
  const ModulePatterns found = PatternsOf(model, wanted);
  std::vector<std::string> targets;
  for (const std::string& pattern : found.patterns) targets.push_back(absl::StrCat("re:", pattern));
  targets.insert(targets.end(), found.modules.begin(), found.modules.end());
  return targets;
}

// compressed-tensors' name for how a linear lies in its tensors.
absl::string_view CompressionOf(const WeightFormat& format) {
  if (format.activation_rule() == ActivationRule::kNone) return kFormat;
  return format.fp8() != nullptr ? kFloatFormat : kIntegerFormat;
}

Json InputsJson(const WeightFormat& format) {
  if (format.activation_rule() == ActivationRule::kNone) return nullptr;
  return {{"num_bits", 8},
          {"type", format.fp8() != nullptr ? "float" : "int"},
          {"symmetric", true},
          {"strategy", "token"},
          {"dynamic", true}};
}

Json WeightsJson(const WeightFormat& format) {
  if (format.fp8() != nullptr) {
    return {{"num_bits", 8},
            {"type", "float"},
            {"symmetric", true},
            {"strategy", "channel"},
            {"dynamic", false}};
  }
  const GridFormat& grid = *format.grid();
  Json weights = {{"num_bits", grid.bits()},
                  {"type", "int"},
                  {"symmetric", grid.symmetric()},
                  {"strategy", grid.group_size() == 0 ? "channel" : "group"}};
  if (grid.group_size() != 0) weights["group_size"] = grid.group_size();
  weights["dynamic"] = false;
  return weights;
}

Json GroupJson(const WeightFormat& format, const std::vector<std::string>& targets) {
  return {{"targets", targets},
          {"weights", WeightsJson(format)},
          {"input_activations", InputsJson(format)},
          {"output_activations", nullptr},
          {"format", CompressionOf(format)}};
}

std::string GroupName(const WeightFormat& format) {
  const absl::string_view inputs = format.activation_rule() == ActivationRule::kNone ? "" : "_a8";
  if (format.fp8() != nullptr) return absl::StrCat("group_fp8_channel", inputs);
  const GridFormat& grid = *format.grid();
  const std::string group =
      grid.group_size() == 0 ? "channel" : absl::StrCat("g", grid.group_size());
  return absl::StrCat("group_w", grid.bits(), "_", group, grid.symmetric() ? "" : "_asym", inputs);
}

// In which groups stand in the dictionary.
auto GroupOrder(const WeightFormat& format) {
  const GridFormat* grid = format.grid();
  return std::tuple(grid == nullptr ? GridFormat::kMaxBits + 1 : grid->bits(),
                    grid == nullptr ? 0 : grid->group_size(), grid != nullptr && grid->symmetric(),
                    format.activation_rule());
}

bool IsGptq(const ModelInventory& model) {
  return model.artifact_format == &ArtifactFormatDefs::gptq;
}

bool HasHeadUnit(const ModelInventory& model) {
  return std::any_of(model.units.begin(), model.units.end(),
                     [](const AllocationUnit& unit) { return unit.place == Place::Head(); });
}

Json QuantizationConfig(const ModelInventory& model, const Plan& plan) {
  std::vector<const WeightFormat*> distinct;
  for (const WeightFormat* format : plan) {
    if (format == nullptr || format->dense()) continue;
    if (std::find(distinct.begin(), distinct.end(), format) == distinct.end()) {
      distinct.push_back(format);
    }
  }
  if (distinct.empty()) return nullptr;
  std::sort(distinct.begin(), distinct.end(), [](const WeightFormat* a, const WeightFormat* b) {
    return GroupOrder(*a) < GroupOrder(*b);
  });
  Json groups = Json::object();
  absl::string_view compression = CompressionOf(*distinct.front());
  for (const WeightFormat* format : distinct) {
    if (CompressionOf(*format) != compression) compression = kMixedFormat;
    groups[GroupName(*format)] =
        GroupJson(*format, Targets(model, [&](size_t i) { return plan[i] == format; }));
  }
  std::vector<std::string> ignore =
      Targets(model, [&](size_t i) { return plan[i] != nullptr && plan[i]->dense(); });
  for (std::string& router : RouterModules(model)) ignore.push_back(std::move(router));
  if (!HasHeadUnit(model)) ignore.insert(ignore.begin(), "lm_head");  // a tied head stays dense
  return {{"quant_method", kMethod},
          {"format", compression},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", kLibraryVersion},
          {"config_groups", std::move(groups)}};
}

absl::Status UnsupportedConfig(absl::string_view where, absl::string_view what) {
  return Failure(reasons::kQuantMethodUnsupported,
                 absl::StrCat(where, ": quantization_config ", what,
                              "; lwq reads dense models, compressed-tensors "
                              "pack-quantized ones and those of 8 bits whose inputs are rounded "
                              "by token, GPTQ's and fp8 in blocks"));
}

std::string StringOr(const Json& object, const char* key, absl::string_view otherwise) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return std::string(otherwise);
  return found->get<std::string>();
}

// Models that come in 8-bit floats with scales by block: their weights are read as dense ones.
absl::Status CheckFp8(const Json& config, absl::string_view where) {
  const auto block = config.find("weight_block_size");
  const bool blocks = block != config.end() && *block == Json::array({kFp8Block, kFp8Block});
  if (StringOr(config, "fmt", "e4m3") == "e4m3" && blocks) return absl::OkStatus();
  return UnsupportedConfig(where, "(fp8) is not of e4m3 in blocks of 128 by 128");
}

bool IsNull(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null();
}

// A group of linears that are multiplied in 8 bits: weights by channel, inputs by token as they
// come.
absl::StatusOr<const WeightFormat*> ReadEightBitGroup(const Json& group, bool floats,
                                                      absl::string_view where) {
  const auto is = [&](const char* key, absl::string_view strategy, bool dynamic) {
    const Json& part = group.contains(key) ? group[key] : Json();
    return part.is_object() && part.value("num_bits", Json()) == 8 &&
           StringOr(part, "type", "int") == (floats ? "float" : "int") &&
           StringOr(part, "strategy", "") == strategy &&
           part.value("symmetric", Json(true)) == true &&
           part.value("dynamic", Json(false)) == dynamic && IsNull(part, "actorder");
  };
  if (!is("weights", "channel", false) || !is("input_activations", "token", true) ||
      !IsNull(group, "output_activations")) {
    return UnsupportedConfig(
        where,
        "is of 8 bits, but not of symmetric weights by channel and dynamic inputs by "
        "token");
  }
  if (floats) return Fp8RowFormat::Find();
  return GridFormat::WithRoundedInputs();
}

absl::StatusOr<const WeightFormat*> ReadGroup(const Json& group, const std::string& global_format,
                                              absl::string_view where) {
  if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) {
    return UnsupportedConfig(where, "has a group without weights");
  }
  const std::string format = StringOr(group, "format", global_format);
  if (format == kIntegerFormat || format == kFloatFormat) {
    return ReadEightBitGroup(group, format == kFloatFormat, where);
  }
  if (format != kFormat) return UnsupportedConfig(where, absl::StrCat("has the format ", format));
  for (const char* key : {"input_activations", "output_activations"}) {
    if (group.contains(key) && !group[key].is_null()) {
      return UnsupportedConfig(where, absl::StrCat("quantizes ", key));
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
    return UnsupportedConfig(where,
                             "has weights that are not integers of 1 to 8 bits by group or channel "
                             "without stored order");
  }
  const bool symmetric = !weights.contains("symmetric") || !weights["symmetric"].is_boolean() ||
                         weights["symmetric"].get<bool>();
  int64_t group_size = 0;
  if (strategy == "group") {
    if (!weights.contains("group_size") || !weights["group_size"].is_number_unsigned() ||
        weights["group_size"].get<uint64_t>() - 1 >= kMaxGroupSize) {
      return UnsupportedConfig(where, "has the strategy group without a sensible group_size");
    }
    group_size = weights["group_size"].get<int64_t>();
  }
  return GridFormat::Find(weights["num_bits"].get<int>(), group_size, symmetric);
}

}  // namespace

std::string QuantizationConfigJson(const ModelInventory& model, const Plan& plan) {
  if (IsGptq(model)) return GptqConfigJson(model, plan);
  const Json config = QuantizationConfig(model, plan);
  return config.is_null() ? "" : config.dump();
}

absl::StatusOr<std::string> ArtifactConfigJson(absl::string_view source_config,
                                               const ModelInventory& model, const Plan& plan) {
  LWQ_RETURN_IF_ERROR(
      CheckJson(source_config, {.reason = reasons::kConfigInvalid.name}, "config.json"));
  Json config = Json::parse(source_config.begin(), source_config.end(), nullptr,
                            /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return Failure(reasons::kConfigInvalid, "config.json: an object is expected");
  }
  config.erase("quantization_config");
  const std::string quantization = QuantizationConfigJson(model, plan);
  if (!quantization.empty()) config["quantization_config"] = Json::parse(quantization);
  return config.dump(2) + "\n";
}

// compressed-tensors' name of weights that are stored whole.
constexpr char kNotSparse[] = "dense";

// What else changes what a model of compressed-tensors computes, and is not done here: refused,
// since without it the numbers would be of another model. Null and empty ones say nothing.
absl::Status CheckNothingElse(const Json& quantization, absl::string_view where) {
  const Json& transforms = quantization.value("transform_config", Json());
  if (transforms.is_object() && transforms.contains("config_groups") &&
      !transforms["config_groups"].empty()) {
    return UnsupportedConfig(
        where, "has a transform_config: activations are rotated, which lwq does not do");
  }
  const Json& sparsity = quantization.value("sparsity_config", Json());
  const std::string stored =
      sparsity.is_object() ? StringOr(sparsity, "format", kNotSparse) : kNotSparse;
  if (stored != kNotSparse) {
    return UnsupportedConfig(where, absl::StrCat("has a sparsity_config of the format ", stored));
  }
  const Json& cache = quantization.value("kv_cache_scheme", Json());
  if (cache.is_object() && !cache.empty()) {
    return UnsupportedConfig(
        where, "has a kv_cache_scheme: keys and values are rounded, which lwq does not do");
  }
  return absl::OkStatus();
}

absl::StatusOr<DeclaredQuantization> ReadQuantizationConfig(absl::string_view config_json,
                                                            absl::string_view where) {
  LWQ_RETURN_IF_ERROR(CheckJson(config_json, {.reason = reasons::kConfigInvalid.name}, where));
  const Json config = Json::parse(config_json.begin(), config_json.end(), nullptr,
                                  /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return Failure(reasons::kConfigInvalid, absl::StrCat(where, ": an object is expected"));
  }
  DeclaredQuantization declared;
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return declared;
  if (!found->is_object()) return UnsupportedConfig(where, "is not an object");
  const std::string method = StringOr(*found, "quant_method", "(none)");
  if (method == kFp8Method) {
    LWQ_RETURN_IF_ERROR(CheckFp8(*found, where));
    declared.fp8_blocks = true;
    return declared;
  }
  if (method == kGptqMethod) return ReadGptqConfig(found->dump(), where);
  if (method != kMethod)
    return UnsupportedConfig(where, absl::StrCat("has the quant_method ", method));
  LWQ_RETURN_IF_ERROR(CheckNothingElse(*found, where));
  const auto groups = found->find("config_groups");
  if (groups == found->end() || !groups->is_object() || groups->empty()) {
    return UnsupportedConfig(where, "has no config_groups");
  }
  const std::string format = StringOr(*found, "format", kFormat);
  for (const auto& group : groups->items()) {
    LWQ_ASSIGN_OR_RETURN(const WeightFormat* read, ReadGroup(group.value(), format, where));
    declared.formats.push_back(read);
  }
  declared.coding = &CompressedTensorsCoding();
  return declared;
}

absl::StatusOr<DeclaredQuantization> ReadDeclaredQuantization(const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  LWQ_ASSIGN_OR_RETURN(const std::string config,
                       ReadJsonFile(path, {.reason = reasons::kConfigInvalid.name}));
  LWQ_ASSIGN_OR_RETURN(DeclaredQuantization declared, ReadQuantizationConfig(config, path));
  const std::string side = JoinPath(directory, kGptqSideFile);
  if (declared.coding != nullptr || !FileExists(side)) return declared;
  LWQ_ASSIGN_OR_RETURN(const std::string text,
                       ReadJsonFile(side, {.reason = reasons::kConfigInvalid.name}));
  return ReadGptqConfig(text, side);
}

absl::Status CheckFp8Declared(const Checkpoint& checkpoint) {
  if (!HasFp8(checkpoint)) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(const DeclaredQuantization declared,
                       ReadDeclaredQuantization(checkpoint.directory()));
  if (declared.fp8_blocks) return absl::OkStatus();
  return UnsupportedConfig(JoinPath(checkpoint.directory(), "config.json"),
                           "does not say \"quant_method\": \"fp8\", but weights are F8_E4M3");
}

SideConfig SideConfigOf(const ModelInventory& model, const Plan& plan) {
  if (!IsGptq(model)) return {};
  const std::string quantization = GptqConfigJson(model, plan);
  if (quantization.empty()) return {};
  return {kGptqSideFile, Json::parse(quantization).dump(2) + "\n"};
}

}  // namespace lwq
