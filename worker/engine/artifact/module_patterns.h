// Regular expressions by which the dictionaries of artifacts name linears: anchored, disjoint, and
// matching a linear under its own name and under that of the module that inference engines fuse it
// into (docs/formats/compressed_tensors.md, docs/formats/gptq.md).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

struct ModulePatterns {
  std::vector<std::string> patterns;  // one a kind of unit, in model order
  std::vector<std::string> modules;   // outside the layers: exact names
};
// Of the units (indices into model.units) for which `wanted` says so.
ModulePatterns PatternsOf(const ModelInventory& model, absl::FunctionRef<bool(size_t unit)> wanted);

// Matrices of layers that no format reaches: the routers of experts.
std::vector<std::string> RouterModules(const ModelInventory& model);

// `text` with its dots escaped.
std::string EscapeRegex(absl::string_view text);

}  // namespace lwq
