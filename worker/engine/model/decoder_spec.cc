#include "worker/engine/model/decoder_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/model/config_reader.h"
#include "worker/engine/model/families.h"

namespace lwq {
namespace {

absl::string_view RoleName(LinearRole role) {
  switch (role) {
    case LinearRole::kQuery:
      return "self_attn.q_proj";
    case LinearRole::kKey:
      return "self_attn.k_proj";
    case LinearRole::kValue:
      return "self_attn.v_proj";
    case LinearRole::kOutput:
      return "self_attn.o_proj";
    case LinearRole::kGate:
      return "mlp.gate_proj";
    case LinearRole::kUp:
      return "mlp.up_proj";
    case LinearRole::kDown:
      return "mlp.down_proj";
  }
  return "";
}

// The family of the first architecture that one knows.
absl::StatusOr<std::pair<const ModelFamilyDef*, std::string>> FindFamily(
    const std::vector<std::string>& architectures) {
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
  return InvalidFailure("ARCH_UNSUPPORTED", absl::StrCat("config.json: field architectures: found ",
                                                         found.substr(0, 200), ", supported: ",
                                                         absl::StrJoin(known, ", ")));
}

}  // namespace

std::string DecoderSpec::LayerPrefix(int layer) const {
  return absl::StrCat("model.layers.", layer, ".");
}

std::string DecoderSpec::ModuleName(int layer, LinearRole role) const {
  return absl::StrCat(LayerPrefix(layer), RoleName(role));
}

int64_t DecoderSpec::OutFeatures(LinearRole role) const {
  switch (role) {
    case LinearRole::kQuery:
      return int64_t{num_heads} * head_dim;
    case LinearRole::kKey:
    case LinearRole::kValue:
      return int64_t{num_kv_heads} * head_dim;
    case LinearRole::kGate:
    case LinearRole::kUp:
      return intermediate_size;
    case LinearRole::kOutput:
    case LinearRole::kDown:
      return hidden_size;
  }
  return 0;
}

int64_t DecoderSpec::InFeatures(LinearRole role) const {
  switch (InputOf(role)) {
    case LinearInput::kAttention:
    case LinearInput::kMlp:
      return hidden_size;
    case LinearInput::kAttentionOutput:
      return int64_t{num_heads} * head_dim;
    case LinearInput::kMlpHidden:
      return intermediate_size;
  }
  return 0;
}

absl::StatusOr<DecoderSpec> ReadDecoderSpec(const std::string& model_directory) {
  JsonLimits limits;
  limits.reason = "CONFIG_INVALID";
  LWQ_ASSIGN_OR_RETURN(const std::string text,
                       ReadJsonFile(JoinPath(model_directory, "config.json"), limits));
  LWQ_ASSIGN_OR_RETURN(const ConfigReader config, ConfigReader::Parse(text));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> architectures,
                       config.Strings("architectures"));
  LWQ_ASSIGN_OR_RETURN(const auto family, FindFamily(architectures));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, family.first->parse(text));
  spec.family = std::string(family.first->name);
  spec.architecture = family.second;
  return spec;
}

}  // namespace lwq
