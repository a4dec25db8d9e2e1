// The reader's half of docs/formats/safetensors.md. The header is parsed by events straight into
// entries, so a hostile header costs no more memory than its own text, and every number that later
// sizes or places a read is checked here.
#include "worker/engine/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;
constexpr size_t kMaxTensors = 100000;
constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxMetadataBytes = size_t{1} << 20;
constexpr uint64_t kMaxInteger = uint64_t{1} << 53;

using Json = nlohmann::json;
using Entry = SafetensorsHeader::Entry;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 128)), "\"");
}

bool IsTensorName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  for (char c : name) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return false;
  }
  for (absl::string_view bad : {"..", "/"}) {
    if (absl::StartsWith(name, bad) || absl::EndsWith(name, bad)) return false;
  }
  return true;
}

// Builds a SafetensorsHeader from JSON events. The only shape it accepts is
// {name: {"dtype": string, "shape": [int...], "data_offsets": [int, int]}, ...,
//  "__metadata__": {string: string}}.
class HeaderBuilder : public nlohmann::json_sax<Json> {
 public:
  std::vector<Entry>& entries() { return entries_; }
  std::vector<std::pair<std::string, std::string>>& metadata() { return metadata_; }
  const std::string& reason() const { return reason_; }
  const std::string& problem() const { return problem_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text.substr(0, 40), " (integers only)"));
  }
  bool binary(binary_t&) override { return Unexpected("binary"); }
  bool number_integer(number_integer_t value) override {
    if (value < 0) return Unexpected(absl::StrCat("the negative number ", value));
    return Number(static_cast<uint64_t>(value));
  }
  bool number_unsigned(number_unsigned_t value) override { return Number(value); }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata_bytes_ += metadata_.back().first.size() + value.size();
      if (metadata_bytes_ > kMaxMetadataBytes) {
        return Fail(reasons::kStHeaderJson.name,
                    absl::StrCat("__metadata__ is over ", kMaxMetadataBytes, " bytes"));
      }
      metadata_.back().second = std::move(value);
      return true;
    }
    if (place_ != Place::kTensor || field_ != "dtype") return Unexpected("a string");
    std::optional<DType> dtype = DTypeFromName(value);
    if (!dtype.has_value()) {
      return Fail(reasons::kStDtype.name, absl::StrCat(Where(), "unknown dtype ", Quoted(value)));
    }
    entries_.back().dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
      fields_.clear();
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) return TopKey(name);
    if (!fields_.insert(name).second) {
      return Fail(reasons::kStHeaderJson.name,
                  absl::StrCat(Where(), "the key ", Quoted(name), " occurs twice"));
    }
    if (place_ == Place::kMetadata) {
      metadata_.emplace_back(std::move(name), std::string());
      return true;
    }
    field_ = name;
    if (field_ == "dtype" || field_ == "shape" || field_ == "data_offsets") return true;
    return Fail(reasons::kStHeaderJson.name, absl::StrCat(Where(), "unknown key ", Quoted(name)));
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (fields_.size() != 3) {
        return Fail(reasons::kStHeaderJson.name,
                    absl::StrCat(Where(), "needs dtype, shape and data_offsets"));
      }
      place_ = Place::kTop;
    } else if (place_ == Place::kMetadata) {
      place_ = Place::kTop;
      in_metadata_ = false;
    } else {
      place_ = Place::kEnd;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return Unexpected("an array");
    place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
    num_offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && num_offsets_ != 2) {
      return Fail(reasons::kStHeaderJson.name,
                  absl::StrCat(Where(), "data_offsets needs two numbers"));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(reasons::kStHeaderJson.name, absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  enum class Place { kStart, kTop, kTensor, kMetadata, kShape, kOffsets, kEnd };

  bool TopKey(string_t& name) {
    if (name == "__metadata__") {
      if (std::exchange(seen_metadata_, true)) {
        return Fail(reasons::kStHeaderJson.name, "the key \"__metadata__\" occurs twice");
      }
      in_metadata_ = true;
      return true;
    }
    in_metadata_ = false;
    if (!IsTensorName(name)) {
      return Fail(reasons::kStHeaderJson.name,
                  absl::StrCat("the tensor name ", Quoted(name), " is not acceptable (1 to ",
                               kMaxNameBytes, " bytes, no control characters)"));
    }
    if (!names_.insert(name).second) {
      return Fail(reasons::kStHeaderJson.name,
                  absl::StrCat("the tensor ", Quoted(name), " occurs twice"));
    }
    if (entries_.size() >= kMaxTensors) {
      return Fail(reasons::kStHeaderJson.name, absl::StrCat("more than ", kMaxTensors, " tensors"));
    }
    entries_.push_back(Entry{std::move(name), DType::kF32, {}, 0, 0});
    return true;
  }

  bool Number(uint64_t value) {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Unexpected("a number");
    if (value > kMaxInteger) {
      return Fail(reasons::kStOverflow.name,
                  absl::StrCat(Where(), value, " in ", field_, " is over 2^53"));
    }
    Entry& entry = entries_.back();
    if (place_ == Place::kShape) {
      if (entry.shape.size() >= kMaxRank) {
        return Fail(reasons::kStHeaderJson.name,
                    absl::StrCat(Where(), "more than ", kMaxRank, " dimensions"));
      }
      entry.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (num_offsets_ >= 2) {
      return Fail(reasons::kStHeaderJson.name,
                  absl::StrCat(Where(), "data_offsets needs two numbers"));
    }
    (num_offsets_++ == 0 ? entry.begin : entry.end) = static_cast<int64_t>(value);
    return true;
  }

  std::string Where() const {
    if (in_metadata_) return "__metadata__: ";
    return entries_.empty() ? "" : absl::StrCat("tensor ", Quoted(entries_.back().name), ": ");
  }
  bool Unexpected(absl::string_view what) {
    return Fail(reasons::kStHeaderJson.name, absl::StrCat(Where(), "unexpected ", what));
  }
  bool Fail(absl::string_view reason, std::string problem) {
    reason_ = std::string(reason);
    problem_ = std::move(problem);
    return false;
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;
  bool seen_metadata_ = false;
  int num_offsets_ = 0;
  size_t metadata_bytes_ = 0;
  std::string field_;
  absl::flat_hash_set<std::string> fields_;  // keys of the object being read
  absl::flat_hash_set<std::string> names_;
  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::string reason_;
  std::string problem_;
};

// Size in bytes by checked multiplication in bits, against the range the header gives.
absl::Status CheckSize(const Entry& entry, absl::string_view where) {
  uint64_t bits = uint64_t{8} * SizeOf(entry.dtype);
  for (int64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dimension), &bits)) {
      return Failure(reasons::kStOverflow, absl::StrCat(where, ": tensor ", Quoted(entry.name),
                                                        ": the product of its shape overflows"));
    }
  }
  const uint64_t bytes = bits / 8;
  if (entry.end < entry.begin || static_cast<uint64_t>(entry.end - entry.begin) != bytes) {
    return Failure(reasons::kStSize,
                   absl::StrCat(where, ": tensor ", Quoted(entry.name), ": data_offsets [",
                                entry.begin, ", ", entry.end, "] but its shape and dtype ",
                                NameOf(entry.dtype), " make ", bytes, " bytes"));
  }
  return absl::OkStatus();
}

// Sorted ranges must start at 0, touch, and end exactly at `data_bytes`.
absl::Status CheckRanges(const std::vector<Entry>& entries, uint64_t data_bytes,
                         absl::string_view where) {
  int64_t expected = 0;
  const Entry* previous = nullptr;
  for (const Entry& entry : entries) {
    if (entry.begin < expected) {
      return Failure(
          reasons::kStOverlap,
          absl::StrCat(where, ": tensor ", Quoted(entry.name), " begins at ", entry.begin,
                       ", inside ", Quoted(previous->name), " which ends at ", expected));
    }
    if (entry.begin > expected) {
      return Failure(
          reasons::kStHole,
          absl::StrCat(where, ": tensor ", Quoted(entry.name), " begins at ", entry.begin, ", ",
                       entry.begin - expected, " bytes after the data before it ends"));
    }
    expected = entry.end;
    previous = &entry;
  }
  if (static_cast<uint64_t>(expected) != data_bytes) {
    return Failure(reasons::kStSize, absl::StrCat(where, ": its tensors take ", expected,
                                                  " bytes of data, the file has ", data_bytes,
                                                  "; it is cut short or has bytes left over"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::Span<const uint8_t> bytes,
                                                         absl::string_view where) {
  if (bytes.size() < 8) {
    return Failure(reasons::kStHeaderLength, absl::StrCat(where, ": ", bytes.size(),
                                                          " bytes, a safetensors file has at "
                                                          "least 8"));
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
  if (length < 2 || length > kMaxHeaderBytes || length > bytes.size() - 8) {
    return Failure(reasons::kStHeaderLength,
                   absl::StrCat(where, ": header length ", length, ", accepted are 2 to ",
                                std::min<uint64_t>(kMaxHeaderBytes, bytes.size() - 8),
                                " in this file of ", bytes.size(), " bytes"));
  }
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  if (text[0] != '{') {
    return Failure(reasons::kStHeaderJson, absl::StrCat(where,
                                                        ": the header does not begin with "
                                                        "'{'"));
  }
  HeaderBuilder builder;
  if (!Json::sax_parse(text, text + length, &builder)) {
    return CorruptFailure(builder.reason(), absl::StrCat(where, ": ", builder.problem()));
  }
  SafetensorsHeader header;
  header.data_offset = 8 + static_cast<int64_t>(length);
  header.entries = std::move(builder.entries());
  header.metadata = std::move(builder.metadata());
  for (const Entry& entry : header.entries) LWQ_RETURN_IF_ERROR(CheckSize(entry, where));
  std::sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  LWQ_RETURN_IF_ERROR(CheckRanges(header.entries, bytes.size() - 8 - length, where));
  return header;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  LWQ_ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(file->bytes(), path));
  return std::unique_ptr<SafetensorsFile>(new SafetensorsFile(std::move(file), std::move(header)));
}

TensorView SafetensorsFile::View(const SafetensorsHeader::Entry& entry) const {
  return {entry.dtype, entry.shape,
          file_->bytes().subspan(static_cast<size_t>(header_.data_offset + entry.begin),
                                 static_cast<size_t>(entry.end - entry.begin))};
}

}  // namespace lwq
