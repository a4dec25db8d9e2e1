// The dictionary of GPTQ artifacts: "quantization_config" in config.json, and the whole of
// quantize_config.json beside it. docs/formats/gptq.md.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

// As compact JSON: width and group size of most linears, and in `dynamic` a rule for every kind of
// unit, of which no two match the same module. "" when every unit is dense.
std::string GptqConfigJson(const ModelInventory& model, const Plan& plan);

// Of which widths the kernels of GPTQ files are.
constexpr bool IsGptqWidth(int64_t bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

// Of a dictionary (a JSON object) of this build or of another tool's. INVALID_ARGUMENT
// "QUANT_METHOD_UNSUPPORTED" says what was found in `where` and what is read.
absl::StatusOr<DeclaredQuantization> ReadGptqConfig(absl::string_view dictionary,
                                                    absl::string_view where);

}  // namespace lwq
