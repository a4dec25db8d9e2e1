#include "worker/engine/model/decoder_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/families.h"

namespace lwq {
namespace {

// What is left of a config.json that no family is for, when each has asked for its fields.
std::string NotUnderstoodByAny(const ConfigReader& config) {
  for (const ModelFamilyDef* family : ModelFamilies()) (void)family->parse(config);
  const std::vector<std::string> fields = config.NotUnderstood();
  if (fields.empty()) return "";
  return absl::StrCat("; fields that no family has: ", absl::StrJoin(fields, ", ").substr(0, 400));
}

// The family of the first architecture that one knows.
absl::StatusOr<std::pair<const ModelFamilyDef*, std::string>> FindFamily(
    const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> architectures,
                       config.Strings("architectures"));
  std::vector<absl::string_view> known;
  for (const ModelFamilyDef* family : ModelFamilies()) {
    for (absl::string_view name : family->architectures) {
      known.push_back(name);
      if (std::find(architectures.begin(), architectures.end(), name) != architectures.end()) {
        return std::make_pair(family, std::string(name));
      }
    }
  }
  std::string found = absl::StrJoin(architectures, ", ");
  if (found.empty()) found = "none";
  return Failure(
      reasons::kArchUnsupported,
      absl::StrCat("config.json: field architectures: found ", found.substr(0, 200),
                   ", supported: ", absl::StrJoin(known, ", "), NotUnderstoodByAny(config)));
}

LayerSpec EmbeddingLayer(const DecoderSpec& spec) {
  const std::string module(absl::StripSuffix(spec.embedding.tensor, ".weight"));
  const std::string name = module.substr(module.find('.') + 1);  // without the model's own
  LayerSpec layer;
  layer.inputs = {
      {spec.head.tied ? spec.head.layer.inputs.front().name : "tokens", spec.hidden_size}};
  LinearSpec& linear = layer.linears.emplace_back();
  linear.shape = {module, spec.vocab_size,        spec.hidden_size,
                  name,   LinearRole::kEmbedding, layer.inputs.front().name};
  layer.units = {{name, name}};
  return layer;
}

absl::StatusOr<DecoderSpec> Parse(const ModelFamilyDef& family, const ConfigReader& config) {
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, family.parse(config));
  spec.embedding.layer = EmbeddingLayer(spec);
  const std::vector<std::string> fields = config.NotUnderstood();
  if (fields.empty()) return spec;
  return Failure(
      reasons::kArchUnsupported,
      absl::StrCat("config.json of a ", family.name, " model has fields that lwq does not know: ",
                   absl::StrJoin(fields, ", ").substr(0, 400),
                   "; if they do not change what the model computes, take them out"));
}

}  // namespace

absl::StatusOr<DecoderSpec> ParseConfig(const ModelFamilyDef& family,
                                        absl::string_view config_json) {
  LWQ_ASSIGN_OR_RETURN(const ConfigReader config, ConfigReader::Parse(config_json));
  return Parse(family, config);
}

absl::StatusOr<DecoderSpec> ReadDecoderSpec(const std::string& model_directory) {
  JsonLimits limits;
  limits.reason = reasons::kConfigInvalid.name;
  LWQ_ASSIGN_OR_RETURN(const std::string text,
                       ReadModelJson(model_directory, "config.json", limits));
  return ParseDecoderSpec(text);
}

absl::StatusOr<DecoderSpec> ParseDecoderSpec(absl::string_view config_json) {
  LWQ_ASSIGN_OR_RETURN(const ConfigReader config, ConfigReader::Parse(config_json));
  LWQ_ASSIGN_OR_RETURN(const auto family, FindFamily(config));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, Parse(*family.first, config));
  spec.family = std::string(family.first->name);
  spec.architecture = family.second;
  return spec;
}

}  // namespace lwq
