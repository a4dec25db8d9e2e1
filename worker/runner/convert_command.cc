#include "worker/runner/convert_command.h"

#include "base/failure.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/convert.h"

namespace lwq {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<Json> Convert(const ConvertRequest& request) {
  LWQ_ASSIGN_OR_RETURN(const ArtifactFormatDef* to, FindArtifactFormat(request.format));
  ConvertOptions options;
  options.round_scales = request.round_scales;
  LWQ_ASSIGN_OR_RETURN(const ConvertedArtifact made,
                       ConvertArtifact(request.source, *to, request.directory, options));
  return Json{{"from", std::string(made.from->name)},
              {"to", std::string(to->name)},
              {"lossless", made.rounded_scales == 0},
              {"linears", made.linears},
              {"rounded_scales", made.rounded_scales},
              {"largest_rounding", made.largest_rounding},
              {"weight_bytes", made.weight_bytes},
              {"files", made.files.size()}};
}

}  // namespace

bool RunConvert(const ConvertRequest& request, std::string* json) {
  const absl::StatusOr<Json> made = Convert(request);
  const Json said = made.ok() ? *made
                              : Json{{"code", static_cast<int>(made.status().code())},
                                     {"reason", ReasonOf(made.status())},
                                     {"message", std::string(made.status().message())}};
  *json = said.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return made.ok();
}

}  // namespace lwq
