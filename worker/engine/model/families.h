// The list of model families (families.def).
#pragma once

#include "absl/types/span.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {

// Sorted by name.
absl::Span<const ModelFamilyDef* const> ModelFamilies();

}  // namespace lwq
