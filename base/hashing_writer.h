// A file and its SHA-256, made together: what is written need not be read again to be named.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file.h"
#include "base/hash.h"

namespace lwq {

// As FileWriter, and not thread-safe either.
class HashingWriter {
 public:
  static absl::StatusOr<std::unique_ptr<HashingWriter>> Create(const std::string& path);
  absl::Status Append(absl::Span<const uint8_t> bytes);
  absl::Status Append(absl::string_view bytes);
  int64_t size() const { return file_->size(); }
  // FileWriter's two ends, with the digest in lower-case hexadecimal.
  absl::StatusOr<std::string> Finish();
  absl::StatusOr<std::string> Close();

 private:
  explicit HashingWriter(std::unique_ptr<FileWriter> file) : file_(std::move(file)) {}
  const std::unique_ptr<FileWriter> file_;
  Sha256 hash_;
};

}  // namespace lwq
