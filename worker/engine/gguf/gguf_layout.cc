#include "worker/engine/gguf/gguf_layout.h"

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr size_t kMaxKeyBytes = 65535;
constexpr size_t kMaxNameBytes = 63;
constexpr int64_t kMaxTensorBytes = int64_t{1} << 60;
constexpr uint32_t kMaxAlignment = 1 << 20;

template <typename T>
void AppendNumber(T value, std::string* out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

bool HasControlCharacters(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

absl::Status TensorFailure(absl::string_view name, absl::string_view problem) {
  return InvalidFailure(
      reasons::kGgufTensor.name,
      absl::StrCat("tensor \"", absl::Utf8SafeCEscape(name.substr(0, 128)), "\": ", problem));
}

}  // namespace

absl::Status CheckGgufTensor(const GgufTensorSpec& tensor) {
  const std::string& name = tensor.name;
  if (name.empty() || name.size() > kMaxNameBytes || HasControlCharacters(name)) {
    return TensorFailure(
        name, absl::StrCat("a name has 1 to ", kMaxNameBytes,
                           " bytes and no control characters, this one has ", name.size()));
  }
  if (tensor.shape.size() > size_t{kMaxGgufDimensions}) {
    return TensorFailure(name, absl::StrCat(tensor.shape.size(), " dimensions, at most ",
                                            kMaxGgufDimensions, " are accepted"));
  }
  int64_t elements = 1;
  for (const int64_t dimension : tensor.shape) {
    if (dimension < 1 || elements > kMaxTensorBytes / 4 / dimension) {
      return TensorFailure(name, absl::StrCat("the shape [", absl::StrJoin(tensor.shape, ", "),
                                              "] has a dimension below 1 or is too large"));
    }
    elements *= dimension;
  }
  const GgufTypeDef& type = DefOf(tensor.type);
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (cols % type.block_size != 0) {
    return TensorFailure(name, absl::StrCat("rows of ", cols, " values, ", type.name,
                                            " needs a multiple of ", type.block_size));
  }
  return absl::OkStatus();
}

absl::Status CheckGgufKey(absl::string_view key) {
  if (!key.empty() && key.size() <= kMaxKeyBytes && !HasControlCharacters(key)) {
    return absl::OkStatus();
  }
  return InvalidFailure(
      reasons::kGgufMetadata.name,
      absl::StrCat("key \"", absl::Utf8SafeCEscape(key.substr(0, 128)), "\": a key has 1 to ",
                   kMaxKeyBytes, " bytes and no control characters, this one has ", key.size()));
}

absl::StatusOr<int64_t> GgufAlignment(const GgufMetadata& metadata) {
  const GgufValue* value = metadata.Find("general.alignment");
  if (value == nullptr) return kDefaultGgufAlignment;
  const uint32_t* alignment = std::get_if<uint32_t>(value);
  if (alignment != nullptr && *alignment > 0 && (*alignment & (*alignment - 1)) == 0 &&
      *alignment <= kMaxAlignment) {
    return int64_t{*alignment};
  }
  return InvalidFailure(
      reasons::kGgufMetadata.name,
      absl::StrCat("general.alignment is to be a U32 and a power of two up to ", kMaxAlignment));
}

absl::StatusOr<GgufLayout> LayOutGguf(const GgufMetadata& metadata,
                                      std::vector<GgufTensorSpec> tensors) {
  GgufLayout layout;
  LWQ_ASSIGN_OR_RETURN(layout.alignment, GgufAlignment(metadata));
  std::string& header = layout.header;
  header = "GGUF";
  AppendNumber(uint32_t{3}, &header);
  AppendNumber(uint64_t{tensors.size()}, &header);
  AppendNumber(uint64_t{metadata.entries().size()}, &header);
  absl::flat_hash_set<absl::string_view> keys;
  for (const auto& [key, value] : metadata.entries()) {
    LWQ_RETURN_IF_ERROR(CheckGgufKey(key));
    if (!keys.insert(key).second) {
      return InvalidFailure(reasons::kGgufMetadata.name,
                            absl::StrCat("the key ", key, " is there twice"));
    }
    AppendGgufString(key, &header);
    AppendGgufValue(value, &header);
  }
  absl::flat_hash_set<absl::string_view> names;
  int64_t offset = 0;
  for (const GgufTensorSpec& tensor : tensors) {
    LWQ_RETURN_IF_ERROR(CheckGgufTensor(tensor));
    if (!names.insert(tensor.name).second) {
      return TensorFailure(tensor.name, "the name is there twice");
    }
    AppendGgufString(tensor.name, &header);
    AppendNumber(static_cast<uint32_t>(tensor.shape.size()), &header);
    std::for_each(tensor.shape.rbegin(), tensor.shape.rend(),
                  [&header](int64_t dimension) { AppendNumber(dimension, &header); });
    AppendNumber(tensor.type, &header);
    AppendNumber(offset, &header);
    layout.offsets.push_back(offset);
    offset += PadTo(tensor.size_bytes(), layout.alignment);
    if (offset > kMaxTensorBytes) return TensorFailure(tensor.name, "the file would be too large");
  }
  header.resize(static_cast<size_t>(PadTo(static_cast<int64_t>(header.size()), layout.alignment)),
                '\0');
  layout.file_bytes = static_cast<int64_t>(header.size()) + offset;
  layout.tensors = std::move(tensors);
  return layout;
}

}  // namespace lwq
