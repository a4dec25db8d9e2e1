#include "worker/engine/gguf/gguf_writer.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(const std::string& path,
                                                               const GgufLayout& layout) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> file, FileWriter::Create(path));
  LWQ_RETURN_IF_ERROR(file->Append(layout.header));
  return std::unique_ptr<GgufWriter>(new GgufWriter(layout, std::move(file)));
}

absl::Status GgufWriter::Append(absl::string_view tensor, absl::Span<const uint8_t> bytes) {
  const bool any_left = tensor_ < layout_.tensors.size();
  if (!any_left || layout_.tensors[tensor_].name != tensor) {
    return Failure(reasons::kForecastMismatch,
                   absl::StrCat("writing tensor ", tensor, ": it is the turn of ",
                                any_left ? layout_.tensors[tensor_].name : "no other tensor"));
  }
  const int64_t size = layout_.tensors[tensor_].size_bytes();
  bytes_done_ += static_cast<int64_t>(bytes.size());
  if (bytes_done_ > size) {
    return Failure(reasons::kForecastMismatch,
                   absl::StrCat("writing tensor ", tensor, ": ", bytes_done_, " bytes or more, ",
                                size, " were forecast"));
  }
  LWQ_RETURN_IF_ERROR(file_->Append(bytes));
  if (bytes_done_ < size) return absl::OkStatus();
  const std::string padding(static_cast<size_t>(PadTo(size, layout_.alignment) - size), '\0');
  bytes_done_ = 0;
  ++tensor_;
  return file_->Append(padding);
}

absl::Status GgufWriter::Finish() {
  if (tensor_ != layout_.tensors.size() || file_->size() != layout_.file_bytes) {
    return Failure(
        reasons::kForecastMismatch,
        absl::StrCat("ending a GGUF file after ", tensor_, " of ", layout_.tensors.size(),
                     " tensors and ", file_->size(), " of ", layout_.file_bytes, " bytes"));
  }
  return file_->Finish();
}

}  // namespace lwq
