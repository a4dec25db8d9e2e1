// The list of quantizers, from quantizers.def. Naming each Def here is what makes the linker keep
// it.
#include <string>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

#define LWQ_QUANTIZER(name) extern const QuantizerDef quantizer_##name;
#include "worker/engine/quant/quantizers.def"
#undef LWQ_QUANTIZER

absl::Span<const QuantizerDef* const> Quantizers() {
#define LWQ_QUANTIZER(name) &quantizer_##name,
  static constexpr const QuantizerDef* kAll[] = {
#include "worker/engine/quant/quantizers.def"
  };
#undef LWQ_QUANTIZER
  return kAll;
}

absl::StatusOr<const QuantizerDef*> FindQuantizer(absl::string_view name) {
  std::string names;
  for (const QuantizerDef* def : Quantizers()) {
    if (def->name == name) return def;
    absl::StrAppend(&names, names.empty() ? "" : ", ", def->name);
  }
  return Failure(reasons::kMethodUnknown, absl::StrCat("no quantization method is named \"", name,
                                                       "\"; there are: ", names));
}

void LinearRecord::AddRows(const LinearRecord& rows) {
  const double all = square + rows.square;
  if (all > 0) {
    relative_weight_error =
        (relative_weight_error * square + rows.relative_weight_error * rows.square) / all;
  }
  square = all;
  calibrated_error += rows.calibrated_error;
  refinement_gain += rows.refinement_gain;
}

}  // namespace lwq
