// Every count and length is held against the bytes that are left before anything is allocated or
// skipped by it, so a hostile header costs no more memory than a few times its own size.
#include "worker/engine/gguf/gguf_reader.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 128)), "\"");
}

// A refusal by the checks that reader and layout share, as damage of this file.
absl::Status Corrupt(const absl::Status& status, absl::string_view where) {
  return CorruptFailure(ReasonOf(status), absl::StrCat(where, ": ", status.message()));
}

// Reads forward through the header.
class HeaderReader {
 public:
  HeaderReader(absl::Span<const uint8_t> bytes, absl::string_view where)
      : bytes_(bytes), where_(where) {}

  int64_t position() const { return static_cast<int64_t>(at_); }
  uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  absl::StatusOr<T> Number(absl::string_view what) {
    if (left() < sizeof(T)) return Truncated(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string> String(absl::string_view what) {
    LWQ_ASSIGN_OR_RETURN(const uint64_t size, Number<uint64_t>(what));
    if (left() < size) return Truncated(what, size);
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return text;
  }

  // A count of things that take at least `bytes_each` bytes.
  absl::StatusOr<uint64_t> Count(absl::string_view what, uint64_t bytes_each) {
    LWQ_ASSIGN_OR_RETURN(const uint64_t count, Number<uint64_t>(what));
    if (count > left() / bytes_each) {
      return Failure(reasons::kGgufTruncated,
                     absl::StrCat(where_, ": ", count, " as the number of ", what, " at byte ",
                                  at_ - 8, ", ", left(), " bytes are left"));
    }
    return count;
  }

  absl::Status Fail(absl::string_view reason, absl::string_view problem) const {
    return CorruptFailure(reason, absl::StrCat(where_, ": ", problem));
  }

 private:
  absl::Status Truncated(absl::string_view what, uint64_t size) const {
    return Failure(reasons::kGgufTruncated,
                   absl::StrCat(where_, ": ", what, " at byte ", at_, " takes ", size, " bytes, ",
                                left(), " are left"));
  }

  const absl::Span<const uint8_t> bytes_;
  const absl::string_view where_;
  size_t at_ = 0;
};

template <typename T>
absl::StatusOr<T> ReadScalar(HeaderReader& in, absl::string_view key) {
  if constexpr (std::is_same_v<T, std::string>) {
    return in.String(key);
  } else if constexpr (std::is_same_v<T, bool>) {
    LWQ_ASSIGN_OR_RETURN(const uint8_t byte, in.Number<uint8_t>(key));
    if (byte <= 1) return byte == 1;
    return in.Fail(reasons::kGgufMetadata.name,
                   absl::StrCat(Quoted(key), " has ", byte, " for a BOOL"));
  } else {
    return in.Number<T>(key);
  }
}

template <typename T>
absl::StatusOr<GgufValue> ReadValue(HeaderReader& in, absl::string_view key) {
  LWQ_ASSIGN_OR_RETURN(T value, ReadScalar<T>(in, key));
  return GgufValue(std::in_place_type<T>, std::move(value));
}

template <typename T>
absl::StatusOr<GgufValue> ReadArray(HeaderReader& in, absl::string_view key) {
  constexpr uint64_t kBytesEach = std::is_same_v<T, std::string> ? 8 : sizeof(T);
  LWQ_ASSIGN_OR_RETURN(const uint64_t count,
                       in.Count(absl::StrCat("elements of ", Quoted(key)), kBytesEach));
  // More than any vocabulary or list of merges has: a large file must not become memory by a count.
  constexpr uint64_t kMaxElements = uint64_t{1} << 22;
  if (count > kMaxElements) {
    return in.Fail(reasons::kGgufMetadata.name,
                   absl::StrCat(Quoted(key), " has ", count, " elements, at most ", kMaxElements));
  }
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    LWQ_ASSIGN_OR_RETURN(T value, ReadScalar<T>(in, key));
    values.push_back(std::move(value));
  }
  return GgufValue(std::in_place_type<std::vector<T>>, std::move(values));
}

struct ValueReader {
  GgufValueType type;
  absl::StatusOr<GgufValue> (*scalar)(HeaderReader& in, absl::string_view key);
  absl::StatusOr<GgufValue> (*array)(HeaderReader& in, absl::string_view key);
};
template <typename T>
constexpr ValueReader ReaderOf(GgufValueType type) {
  return {type, &ReadValue<T>, &ReadArray<T>};
}
constexpr ValueReader kValueReaders[] = {
    ReaderOf<uint8_t>(GgufValueType::kU8),         ReaderOf<int8_t>(GgufValueType::kI8),
    ReaderOf<uint16_t>(GgufValueType::kU16),       ReaderOf<int16_t>(GgufValueType::kI16),
    ReaderOf<uint32_t>(GgufValueType::kU32),       ReaderOf<int32_t>(GgufValueType::kI32),
    ReaderOf<float>(GgufValueType::kF32),          ReaderOf<bool>(GgufValueType::kBool),
    ReaderOf<std::string>(GgufValueType::kString), ReaderOf<uint64_t>(GgufValueType::kU64),
    ReaderOf<int64_t>(GgufValueType::kI64),        ReaderOf<double>(GgufValueType::kF64)};

absl::StatusOr<GgufValue> ReadTyped(HeaderReader& in, absl::string_view key) {
  LWQ_ASSIGN_OR_RETURN(uint32_t number, in.Number<uint32_t>("a value's type"));
  const bool is_array = number == static_cast<uint32_t>(GgufValueType::kArray);
  if (is_array) {
    LWQ_ASSIGN_OR_RETURN(number, in.Number<uint32_t>("the type of an array's elements"));
  }
  for (const ValueReader& reader : kValueReaders) {
    if (static_cast<uint32_t>(reader.type) != number) continue;
    return is_array ? reader.array(in, key) : reader.scalar(in, key);
  }
  return in.Fail(reasons::kGgufMetadata.name,
                 absl::StrCat(Quoted(key), " has ", is_array ? "elements" : "a value", " of type ",
                              number, ", accepted are 0 to 12 and no arrays of arrays"));
}

absl::Status ReadMetadata(HeaderReader& in, uint64_t count, absl::string_view where,
                          GgufMetadata* metadata) {
  absl::flat_hash_set<std::string> keys;
  for (uint64_t i = 0; i < count; ++i) {
    LWQ_ASSIGN_OR_RETURN(std::string key, in.String("a key"));
    if (const absl::Status status = CheckGgufKey(key); !status.ok()) return Corrupt(status, where);
    if (!keys.insert(key).second) {
      return in.Fail(reasons::kGgufMetadata.name,
                     absl::StrCat("the key ", Quoted(key), " is there twice"));
    }
    LWQ_ASSIGN_OR_RETURN(GgufValue value, ReadTyped(in, key));
    metadata->Append(std::move(key), std::move(value));
  }
  return absl::OkStatus();
}

absl::Status UnknownType(const GgufTensorSpec& tensor, uint32_t number, absl::string_view where) {
  const std::string known = absl::StrJoin(
      GgufTypes(), ", ",
      [](std::string* out, const GgufTypeDef* type) { absl::StrAppend(out, type->name); });
  return Failure(absl::StatusCode::kUnimplemented, reasons::kGgufType.name,
                 absl::StrCat(where, ": tensor ", Quoted(tensor.name), " has ggml type ", number,
                              ", lwq reads ", known));
}

absl::Status ReadTensor(HeaderReader& in, absl::string_view where, GgufTensorSpec* tensor,
                        uint64_t* offset) {
  LWQ_ASSIGN_OR_RETURN(tensor->name, in.String("a tensor's name"));
  LWQ_ASSIGN_OR_RETURN(const uint32_t dimensions,
                       in.Number<uint32_t>("a tensor's number of dimensions"));
  if (dimensions > kMaxGgufDimensions) {
    return in.Fail(reasons::kGgufTensor.name,
                   absl::StrCat("tensor ", Quoted(tensor->name), " has ", dimensions,
                                " dimensions, at most ", kMaxGgufDimensions, " are accepted"));
  }
  for (uint32_t d = 0; d < dimensions; ++d) {
    LWQ_ASSIGN_OR_RETURN(const int64_t dimension, in.Number<int64_t>("a tensor's dimension"));
    tensor->shape.push_back(dimension);
  }
  std::reverse(tensor->shape.begin(), tensor->shape.end());
  LWQ_ASSIGN_OR_RETURN(const uint32_t number, in.Number<uint32_t>("a tensor's type"));
  LWQ_ASSIGN_OR_RETURN(*offset, in.Number<uint64_t>("a tensor's offset"));
  const GgufTypeDef* type = FindGgufType(number);
  if (type == nullptr) return UnknownType(*tensor, number, where);
  tensor->type = type->type;
  const absl::Status status = CheckGgufTensor(*tensor);
  return status.ok() ? status : Corrupt(status, where);
}

// The fixed head: magic, version; leaves the reader at the counts.
absl::Status ReadMagic(HeaderReader& in) {
  LWQ_ASSIGN_OR_RETURN(const uint32_t magic, in.Number<uint32_t>("the magic"));
  if (magic != 0x46554747u)
    return in.Fail(reasons::kGgufMagic.name, "the file does not begin with GGUF");
  LWQ_ASSIGN_OR_RETURN(const uint32_t version, in.Number<uint32_t>("the version"));
  if (version == 2 || version == 3) return absl::OkStatus();
  return in.Fail(reasons::kGgufMagic.name,
                 absl::StrCat("version ", version, ", accepted are 2 and 3",
                              (version & 0xffff) == 0 ? ", little-endian" : ""));
}

}  // namespace

absl::StatusOr<GgufHeader> ParseGgufHeader(absl::Span<const uint8_t> bytes,
                                           absl::string_view where) {
  HeaderReader in(bytes, where);
  LWQ_RETURN_IF_ERROR(ReadMagic(in));
  // The least that a tensor's entry and a key with its value take.
  LWQ_ASSIGN_OR_RETURN(const uint64_t num_tensors, in.Count("tensors", 8 + 1 + 4 + 4 + 8));
  LWQ_ASSIGN_OR_RETURN(const uint64_t num_keys, in.Count("keys", 8 + 1 + 4 + 1));
  GgufHeader header;
  LWQ_RETURN_IF_ERROR(ReadMetadata(in, num_keys, where, &header.metadata));
  const absl::StatusOr<int64_t> alignment = GgufAlignment(header.metadata);
  if (!alignment.ok()) return Corrupt(alignment.status(), where);
  absl::flat_hash_set<std::string> names;
  int64_t data_end = 0;
  int64_t padded_end = 0;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    GgufTensorSpec tensor;
    uint64_t offset = 0;
    LWQ_RETURN_IF_ERROR(ReadTensor(in, where, &tensor, &offset));
    if (!names.insert(tensor.name).second) {
      return in.Fail(reasons::kGgufTensor.name,
                     absl::StrCat("the tensor ", Quoted(tensor.name), " is there twice"));
    }
    if (offset != static_cast<uint64_t>(padded_end)) {
      return in.Fail(reasons::kGgufOffset.name,
                     absl::StrCat("tensor ", Quoted(tensor.name), " begins at ", offset,
                                  ", the one before it ends at ", padded_end));
    }
    data_end = padded_end + tensor.size_bytes();
    padded_end = PadTo(data_end, *alignment);
    if (data_end > static_cast<int64_t>(bytes.size())) {
      return in.Fail(reasons::kGgufSize.name,
                     absl::StrCat("tensor ", Quoted(tensor.name), " ends at byte ", data_end,
                                  " of the data, the file has ", bytes.size()));
    }
    header.offsets.push_back(static_cast<int64_t>(offset));
    header.tensors.push_back(std::move(tensor));
  }
  header.data_offset = PadTo(in.position(), *alignment);
  // Some writers leave out the padding at the end.
  const int64_t least = data_end > 0 ? header.data_offset + data_end : in.position();
  const int64_t most = header.data_offset + padded_end;
  if (static_cast<int64_t>(bytes.size()) < least || static_cast<int64_t>(bytes.size()) > most) {
    return in.Fail(reasons::kGgufSize.name,
                   absl::StrCat("it ends at byte ", least, ", the file has ", bytes.size(),
                                "; it is cut short or has bytes left over"));
  }
  return header;
}

GgufFile::GgufFile(std::unique_ptr<MappedFile> file, GgufHeader header)
    : file_(std::move(file)), header_(std::move(header)) {
  for (size_t i = 0; i < header_.tensors.size(); ++i) {
    index_of_[header_.tensors[i].name] = static_cast<int>(i);
  }
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  LWQ_ASSIGN_OR_RETURN(GgufHeader header, ParseGgufHeader(file->bytes(), path));
  return std::unique_ptr<GgufFile>(new GgufFile(std::move(file), std::move(header)));
}

int GgufFile::Find(absl::string_view name) const {
  const auto found = index_of_.find(name);
  return found == index_of_.end() ? -1 : found->second;
}

absl::Span<const uint8_t> GgufFile::Bytes(int i) const {
  const size_t at = static_cast<size_t>(i);
  return file_->bytes().subspan(static_cast<size_t>(header_.data_offset + header_.offsets[at]),
                                static_cast<size_t>(header_.tensors[at].size_bytes()));
}

}  // namespace lwq
