// Reads what transformers recorded for the tests of the decoder.
#pragma once

#include <cstring>
#include <vector>

#include "worker/engine/io/safetensors.h"

namespace lwq::testing {

template <typename T>
struct Golden {
  std::vector<int64_t> shape;
  std::vector<T> values;
};

// Empty where the file has no such tensor.
template <typename T>
Golden<T> ReadGolden(const SafetensorsFile& file, absl::string_view name) {
  Golden<T> golden;
  for (const auto& entry : file.header().entries) {
    if (entry.name != name) continue;
    const TensorView view = file.View(entry);
    golden.shape = view.shape;
    golden.values.resize(static_cast<size_t>(view.num_elements()));
    std::memcpy(golden.values.data(), view.bytes.data(), view.bytes.size());
  }
  return golden;
}

}  // namespace lwq::testing
