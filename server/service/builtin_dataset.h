// The calibration texts that are part of the binary: examples/calibration.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

struct BuiltinDataset {
  absl::string_view name;  // of the resource: "datasets/builtin-mixed"
  absl::string_view file;  // "mixed.txt"
  absl::string_view description;
  absl::string_view text;
};

// The first is what jobs calibrate on that name none.
absl::Span<const BuiltinDataset> BuiltinDatasets();

}  // namespace lwq
