// Reading one GGUF file (versions 2 and 3, little-endian). Format: docs/formats/gguf.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file.h"
#include "worker/engine/gguf/gguf_layout.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensorSpec> tensors;  // in file order
  std::vector<int64_t> offsets;         // of each, relative to the data section
  int64_t data_offset = 0;
};

// Parses and checks the header of a file of which `bytes` is the whole content. Pure: fuzzed. Every
// error is DATA_LOSS with a reason of docs/formats/gguf.md and names `where`; a type that lwq does
// not have is UNIMPLEMENTED "GGUF_TYPE". Allocates no more than a small multiple of the header's
// own size.
absl::StatusOr<GgufHeader> ParseGgufHeader(absl::Span<const uint8_t> bytes,
                                           absl::string_view where);

// A mapped and checked file. Immutable, thread-safe.
class GgufFile {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  const GgufHeader& header() const { return header_; }
  // The index of a tensor, -1 when there is none.
  int Find(absl::string_view name) const;
  // The bytes of the i-th tensor, size_bytes of its spec.
  absl::Span<const uint8_t> Bytes(int i) const;
  int64_t size_bytes() const { return static_cast<int64_t>(file_->bytes().size()); }

 private:
  GgufFile(std::unique_ptr<MappedFile> file, GgufHeader header);
  std::unique_ptr<MappedFile> file_;
  GgufHeader header_;
  absl::flat_hash_map<absl::string_view, int> index_of_;  // views of header_
};

}  // namespace lwq
