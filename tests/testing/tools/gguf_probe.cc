// Shows what worker/engine/gguf does to the comparisons under tests/peers.
//
//   gguf_probe dequantize TYPE IN OUT      blocks -> F32
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/block_type.h"

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

absl::Status Run(const std::string& command, const std::vector<std::string>& arguments) {
  if (command == "dequantize" && arguments.size() == 3) return Dequantize(arguments);
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
