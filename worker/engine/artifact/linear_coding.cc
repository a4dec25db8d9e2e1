#include "worker/engine/artifact/linear_coding.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "worker/engine/artifact/compressed_tensors.h"
#include "worker/engine/artifact/gptq.h"
#include "worker/engine/format/grid.h"

namespace lwq {

const LinearCoding& CodingOf(const ArtifactFormatDef& format) {
  return &format == &ArtifactFormatDefs::gptq ? GptqCoding() : CompressedTensorsCoding();
}

bool SameStorage(const WeightFormat& declared, const WeightFormat& found, int64_t in_features) {
  const GridFormat* a = declared.grid();
  const GridFormat* b = found.grid();
  if (a == nullptr || b == nullptr) return &declared == &found;
  const auto group = [&](const GridFormat* grid) {
    return grid->group_size() == 0 ? in_features : grid->group_size();
  };
  return a->activation_rule() == b->activation_rule() && a->bits() == b->bits() &&
         a->symmetric() == b->symmetric() && group(a) == group(b);
}

absl::Status CheckDeclared(absl::string_view module, const FoundLinear& found,
                           const std::vector<const WeightFormat*>& declared) {
  const auto matches = [&](const WeightFormat* format) {
    return SameStorage(*format, *found.format, found.in_features);
  };
  if (std::any_of(declared.begin(), declared.end(), matches)) return absl::OkStatus();
  return CorruptFailure(reasons::kConfigMismatch.name,
                        absl::StrCat(module, " is stored ", found.format->label(),
                                     "; no part of config.json's quantization_config says so"));
}

}  // namespace lwq
