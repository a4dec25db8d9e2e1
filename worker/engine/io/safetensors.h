// Reading one safetensors file. Format: docs/formats/safetensors.md.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/file.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

struct SafetensorsHeader {
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    int64_t begin;  // relative to the data section
    int64_t end;
  };
  int64_t data_offset = 0;                                   // 8 + header length
  std::vector<Entry> entries;                                // in file order
  std::vector<std::pair<std::string, std::string>> metadata;  // __metadata__
};

// Parses and checks the header of a file of which `bytes` is the whole content. Pure: fuzzed.
// Every error is DATA_LOSS with a reason of service-design section 18 (ST_HEADER_LENGTH,
// ST_HEADER_JSON, ST_DTYPE, ST_OVERFLOW, ST_OVERLAP, ST_HOLE, ST_SIZE) and names `where` and the
// tensor. Allocates no more than a small multiple of the header's own size.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const uint8_t> bytes,
                                                         absl::string_view where);

// A mapped and checked file. Immutable, thread-safe.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  const SafetensorsHeader& header() const { return header_; }
  TensorView View(const SafetensorsHeader::Entry& entry) const;
  int64_t size_bytes() const { return static_cast<int64_t>(file_->bytes().size()); }
  const MappedFile& file() const { return *file_; }

 private:
  SafetensorsFile(std::unique_ptr<MappedFile> file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}
  std::unique_ptr<MappedFile> file_;
  SafetensorsHeader header_;
};

}  // namespace lwq
