#include "worker/engine/artifact/artifact_config.h"

#include <utility>

#include "base/failure.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/io/model_files.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kLayerTypes[] = "layer_types";

bool HasWindow(const LayerSpec& layer) { return layer.attention.sliding_window > 0; }

// Layers of both kinds: which is which may follow from their numbers alone, and numbers change.
bool IsMixed(const DecoderSpec& spec) {
  for (const LayerSpec& layer : spec.layers) {
    if (HasWindow(layer) != HasWindow(spec.layers.front())) return true;
  }
  return false;
}

}  // namespace

DecoderSpec WithLayers(DecoderSpec spec, absl::Span<const int> layers) {
  std::vector<LayerSpec> kept;
  for (const int layer : layers) kept.push_back(spec.layers[static_cast<size_t>(layer)]);
  spec.layers = std::move(kept);
  return spec;
}

absl::StatusOr<std::string> ConfigOfLayers(absl::string_view config, const DecoderSpec& source,
                                           absl::Span<const int> kept) {
  LWQ_RETURN_IF_ERROR(CheckJson(config, {.reason = reasons::kConfigInvalid.name}, "config.json"));
  Json json = Json::parse(config.begin(), config.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return Failure(reasons::kConfigInvalid, "config.json: an object is expected");
  }
  json["num_hidden_layers"] = kept.size();
  if (json.contains(kLayerTypes) || IsMixed(source)) {
    Json types = Json::array();
    for (const int layer : kept) {
      types.push_back(HasWindow(source.layers[static_cast<size_t>(layer)]) ? "sliding_attention"
                                                                           : "full_attention");
    }
    json[kLayerTypes] = std::move(types);
  }
  return json.dump(2);
}

absl::StatusOr<std::string> PlannedConfig(const ArtifactPlan& plan, const KeptModel& kept) {
  const std::string& directory = plan.source->directory();
  LWQ_ASSIGN_OR_RETURN(std::string config, ReadModelJson(directory, "config.json",
                                                         {.reason = reasons::kConfigInvalid.name}));
  if (DropsLayers(*plan.model, *plan.plan)) {
    LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(directory));
    LWQ_ASSIGN_OR_RETURN(config, ConfigOfLayers(config, spec, kept.layers));
  }
  return ArtifactConfigJson(config, kept.model, kept.plan);
}

}  // namespace lwq
