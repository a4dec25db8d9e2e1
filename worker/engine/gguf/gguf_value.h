// GGUF's metadata: keys with typed values, in the order of the file.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace lwq {

// The numbers that stand in files.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};

// A scalar, a string, or an array of either. The format has arrays of arrays; no reader takes them.
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, uint64_t, int64_t, double, std::vector<uint8_t>,
                               std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                               std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>,
                               std::vector<bool>, std::vector<std::string>, std::vector<uint64_t>,
                               std::vector<int64_t>, std::vector<double>>;

class GgufMetadata {
 public:
  using Entry = std::pair<std::string, GgufValue>;

  // Replaces the value of a key that is there; otherwise appends.
  void Set(absl::string_view key, GgufValue value);
  // Appends without looking whether the key is there: for a caller that has looked.
  void Append(std::string key, GgufValue value) {
    entries_.emplace_back(std::move(key), std::move(value));
  }

  const GgufValue* Find(absl::string_view key) const;
  // Null when the key is missing or of another type.
  template <typename T>
  const T* Get(absl::string_view key) const {
    const GgufValue* value = Find(key);
    return value == nullptr ? nullptr : std::get_if<T>(value);
  }

  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

// Appends a value as it stands in a file: the number of its type (for an array also that of its
// elements, and their count), then the content, little-endian.
void AppendGgufValue(const GgufValue& value, std::string* out);
// A length in 8 bytes and the text.
void AppendGgufString(absl::string_view text, std::string* out);

}  // namespace lwq
