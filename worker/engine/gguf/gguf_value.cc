#include "worker/engine/gguf/gguf_value.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace lwq {
namespace {

template <typename T>
constexpr GgufValueType TypeOf() {
  if constexpr (std::is_same_v<T, uint8_t>) return GgufValueType::kU8;
  if constexpr (std::is_same_v<T, int8_t>) return GgufValueType::kI8;
  if constexpr (std::is_same_v<T, uint16_t>) return GgufValueType::kU16;
  if constexpr (std::is_same_v<T, int16_t>) return GgufValueType::kI16;
  if constexpr (std::is_same_v<T, uint32_t>) return GgufValueType::kU32;
  if constexpr (std::is_same_v<T, int32_t>) return GgufValueType::kI32;
  if constexpr (std::is_same_v<T, float>) return GgufValueType::kF32;
  if constexpr (std::is_same_v<T, bool>) return GgufValueType::kBool;
  if constexpr (std::is_same_v<T, std::string>) return GgufValueType::kString;
  if constexpr (std::is_same_v<T, uint64_t>) return GgufValueType::kU64;
  if constexpr (std::is_same_v<T, int64_t>) return GgufValueType::kI64;
  if constexpr (std::is_same_v<T, double>) return GgufValueType::kF64;
}

template <typename T>
void AppendNumber(T value, std::string* out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

template <typename T>
void AppendScalar(const T& value, std::string* out) {
  AppendNumber(value, out);
}
void AppendScalar(const std::string& value, std::string* out) { AppendGgufString(value, out); }

template <typename T>
void AppendTyped(const T& value, std::string* out) {
  AppendNumber(TypeOf<T>(), out);
  AppendScalar(value, out);
}
template <typename T>
void AppendTyped(const std::vector<T>& values, std::string* out) {
  AppendNumber(GgufValueType::kArray, out);
  AppendNumber(TypeOf<T>(), out);
  AppendNumber(uint64_t{values.size()}, out);
  for (size_t i = 0; i < values.size(); ++i) AppendScalar(T(values[i]), out);
}

}  // namespace

void AppendGgufString(absl::string_view text, std::string* out) {
  AppendNumber(uint64_t{text.size()}, out);
  out->append(text.data(), text.size());
}

void AppendGgufValue(const GgufValue& value, std::string* out) {
  std::visit([out](const auto& typed) { AppendTyped(typed, out); }, value);
}

void GgufMetadata::Set(absl::string_view key, GgufValue value) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [key](const Entry& entry) { return entry.first == key; });
  if (found != entries_.end()) {
    found->second = std::move(value);
  } else {
    Append(std::string(key), std::move(value));
  }
}

const GgufValue* GgufMetadata::Find(absl::string_view key) const {
  for (const Entry& entry : entries_) {
    if (entry.first == key) return &entry.second;
  }
  return nullptr;
}

}  // namespace lwq
