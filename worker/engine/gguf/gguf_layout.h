// The bytes of a GGUF file before any tensor exists: header, offsets, size. The planner forecasts
// with it and the writer writes by it, so forecast and file cannot differ. Format:
// docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

inline constexpr int64_t kDefaultGgufAlignment = 32;
inline constexpr int kMaxGgufDimensions = 4;

struct GgufTensorSpec {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;  // row-major: [out, in]; files have it the other way round

  int64_t num_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t size_bytes() const { return DefOf(type).RowBytes(num_elements()); }
};

struct GgufLayout {
  std::vector<GgufTensorSpec> tensors;  // in the order given, which is the file's
  std::vector<int64_t> offsets;         // of each, relative to the data section
  std::string header;                   // all before the data section, padding included
  int64_t file_bytes = 0;
  int64_t alignment = kDefaultGgufAlignment;
};

// Errors, INVALID_ARGUMENT: "GGUF_METADATA" for a key that is empty, longer than 65,535 bytes or
// twice there and for a `general.alignment` that is no U32 power of two up to 2^20; "GGUF_TENSOR"
// as CheckGgufTensor, and for a name that is twice there.
absl::StatusOr<GgufLayout> LayOutGguf(const GgufMetadata& metadata,
                                      std::vector<GgufTensorSpec> tensors);

// What any reader asks of a tensor: a name of 1 to 63 bytes without control characters, at most 4
// dimensions, all positive, a row of whole blocks, fewer than 2^60 bytes. INVALID_ARGUMENT
// "GGUF_TENSOR".
absl::Status CheckGgufTensor(const GgufTensorSpec& tensor);
// Likewise a key.
absl::Status CheckGgufKey(absl::string_view key);
// `general.alignment`, or the default.
absl::StatusOr<int64_t> GgufAlignment(const GgufMetadata& metadata);

constexpr int64_t PadTo(int64_t bytes, int64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

}  // namespace lwq
