#include "base/hashing_writer.h"

#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<HashingWriter>> HashingWriter::Create(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> file, FileWriter::Create(path));
  return std::unique_ptr<HashingWriter>(new HashingWriter(std::move(file)));
}

absl::Status HashingWriter::Append(absl::Span<const uint8_t> bytes) {
  hash_.Update(bytes);
  return file_->Append(bytes);
}

absl::Status HashingWriter::Append(absl::string_view bytes) {
  hash_.Update(bytes);
  return file_->Append(bytes);
}

absl::StatusOr<std::string> HashingWriter::Finish() {
  LWQ_RETURN_IF_ERROR(file_->Finish());
  return hash_.FinishHex();
}

absl::StatusOr<std::string> HashingWriter::Close() {
  LWQ_RETURN_IF_ERROR(file_->Close());
  return hash_.FinishHex();
}

}  // namespace lwq
