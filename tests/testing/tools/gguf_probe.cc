// Shows what worker/engine/gguf does to the comparisons under tests/peers.
//
//   gguf_probe dequantize TYPE IN OUT                       blocks -> F32
//   gguf_probe quantize TYPE reference|search COLS IN OUT [IMPORTANCE]
//                                                           F32 rows -> blocks; F32 of each column
//   gguf_probe copy IN OUT                 a whole file, read and laid out and written again
//   gguf_probe names CLASS TENSOR...       of a Hugging Face checkpoint: GGUF's names, one per line
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/gguf/gguf_writer.h"

namespace lwq {
namespace {

absl::Status WriteFloats(const std::string& path, const std::vector<float>& values) {
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(path));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float))));
  return writer->Close();
}

absl::StatusOr<const GgufTypeDef*> TypeOf(const std::string& name) {
  const GgufTypeDef* type = FindGgufType(name);
  if (type == nullptr) return absl::InvalidArgumentError(absl::StrCat("no type ", name));
  return type;
}

absl::Status Dequantize(const std::vector<std::string>& arguments) {
  LWQ_ASSIGN_OR_RETURN(const GgufTypeDef* type, TypeOf(arguments[0]));
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(arguments[1]));
  const size_t blocks = file->bytes().size() / static_cast<size_t>(type->block_bytes);
  std::vector<float> values(blocks * static_cast<size_t>(type->block_size));
  DequantizeRow(*type, file->bytes().data(), static_cast<int64_t>(values.size()), values.data());
  return WriteFloats(arguments[2], values);
}

absl::Span<const float> Floats(const MappedFile& file) {
  return {reinterpret_cast<const float*>(file.bytes().data()), file.bytes().size() / sizeof(float)};
}

absl::Status Quantize(const std::vector<std::string>& arguments) {
  LWQ_ASSIGN_OR_RETURN(const GgufTypeDef* type, TypeOf(arguments[0]));
  const GgufFit fit = arguments[1] == "search" ? GgufFit::kSearch : GgufFit::kReference;
  const size_t cols = static_cast<size_t>(std::atoll(arguments[2].c_str()));
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(arguments[3]));
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(arguments[4]));
  std::unique_ptr<MappedFile> importance_file;
  absl::Span<const float> importance;
  if (arguments.size() > 5) {
    LWQ_ASSIGN_OR_RETURN(importance_file, MappedFile::Open(arguments[5]));
    importance = Floats(*importance_file);
  }
  const absl::Span<const float> values = Floats(*file);
  std::vector<uint8_t> bytes(static_cast<size_t>(type->RowBytes(static_cast<int64_t>(cols))));
  for (size_t row = 0; row < values.size() / cols; ++row) {
    QuantizeRow(*type, fit, values.subspan(row * cols, cols), importance, bytes.data());
    LWQ_RETURN_IF_ERROR(writer->Append(bytes));
  }
  return writer->Close();
}

absl::Status Copy(const std::vector<std::string>& arguments) {
  LWQ_ASSIGN_OR_RETURN(auto file, GgufFile::Open(arguments[0]));
  const GgufHeader& header = file->header();
  LWQ_ASSIGN_OR_RETURN(const GgufLayout layout, LayOutGguf(header.metadata, header.tensors));
  LWQ_ASSIGN_OR_RETURN(auto writer, GgufWriter::Create(arguments[1], layout));
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    LWQ_RETURN_IF_ERROR(writer->Append(header.tensors[i].name, file->Bytes(static_cast<int>(i))));
  }
  return writer->Finish();
}

absl::Status Names(const std::vector<std::string>& arguments) {
  LWQ_ASSIGN_OR_RETURN(const GgufFamilyDef* family, FindGgufFamily(arguments[0]));
  for (size_t i = 1; i < arguments.size(); ++i) {
    LWQ_ASSIGN_OR_RETURN(const GgufTensorName name, NameInGguf(*family, arguments[i]));
    std::printf("%s %lld\n", name.name.c_str(), static_cast<long long>(name.expert));
  }
  return absl::OkStatus();
}

absl::Status Run(const std::string& command, const std::vector<std::string>& arguments) {
  if (command == "dequantize" && arguments.size() == 3) return Dequantize(arguments);
  if (command == "quantize" && (arguments.size() == 5 || arguments.size() == 6)) {
    return Quantize(arguments);
  }
  if (command == "copy" && arguments.size() == 2) return Copy(arguments);
  if (command == "names" && !arguments.empty()) return Names(arguments);
  return absl::InvalidArgumentError("usage: see the head of gguf_probe.cc");
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 2), argv + argc);
  const absl::Status status = lwq::Run(argc > 1 ? argv[1] : "", arguments);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
