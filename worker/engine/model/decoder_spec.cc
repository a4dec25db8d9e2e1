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
