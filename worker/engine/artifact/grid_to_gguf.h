// Linears on a grid as blocks of a GGUF type with the same weights: the rows "lossless" of artifact-formats
// E.9 that need nothing of the scales. docs/formats/gguf.md.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"

namespace lwq {

// The smallest type of 32 values a scale whose integers reach as far as the grid's: Q4_0 for 1 to 4 bits
// (3 with zero points), Q5_0 for 5 (4), Q8_0 for 8 (7). Null where groups are not whole blocks, and for
// 8 bits with zero points.
const GgufFormat* GgufFormatOf(const GridFormat& grid);

// `stored` on a grid, in GgufFormatOf of it. INVALID_ARGUMENT "FORMAT_UNSUPPORTED" for a scale that is not
// exact in F16.
absl::StatusOr<EncodedLinear> EncodeAsGguf(absl::string_view module, const StoredLinear& stored);

}  // namespace lwq
