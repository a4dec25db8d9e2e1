// Writes a GGUF file by its layout, tensor by tensor, each in as many pieces as the caller likes.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file.h"
#include "worker/engine/gguf/gguf_layout.h"

namespace lwq {

// Not thread-safe.
class GgufWriter {
 public:
  // Creates the file and writes the header. `layout` outlives the writer.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(const std::string& path,
                                                            const GgufLayout& layout);
  // The next bytes of `tensor`, whose turn it must be: INTERNAL "FORECAST_MISMATCH" for another
  // tensor or for more bytes than the layout has room for. Pads after its last one.
  absl::Status Append(absl::string_view tensor, absl::Span<const uint8_t> bytes);
  // Flushes to disk. INTERNAL "FORECAST_MISMATCH" unless every tensor was written whole.
  absl::Status Finish();

 private:
  GgufWriter(const GgufLayout& layout, std::unique_ptr<FileWriter> file)
      : layout_(layout), file_(std::move(file)) {}

  const GgufLayout& layout_;
  std::unique_ptr<FileWriter> file_;
  size_t tensor_ = 0;       // whose turn it is
  int64_t bytes_done_ = 0;  // of it
};

}  // namespace lwq
