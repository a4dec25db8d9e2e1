#include "worker/engine/gguf/sentencepiece_proto.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// One field of a message: a number for the wire types 0, 1 and 5, bytes for 2.
struct Field {
  uint32_t number = 0;
  uint64_t value = 0;
  absl::string_view bytes;

  float AsFloat() const {
    const uint32_t bits = static_cast<uint32_t>(value);
    float number_value;
    std::memcpy(&number_value, &bits, sizeof(bits));
    return number_value;
  }
};

class FieldReader {
 public:
  explicit FieldReader(absl::string_view message) : left_(message) {}
  bool done() const { return left_.empty(); }

  absl::StatusOr<Field> Next() {
    LWQ_ASSIGN_OR_RETURN(const uint64_t tag, Varint());
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0: {
        LWQ_ASSIGN_OR_RETURN(field.value, Varint());
        return field;
      }
      case 1:
        return Fixed(8, field);
      case 5:
        return Fixed(4, field);
      case 2: {
        LWQ_ASSIGN_OR_RETURN(const uint64_t size, Varint());
        if (size > left_.size()) return Damaged();
        field.bytes = left_.substr(0, size);
        left_.remove_prefix(size);
        return field;
      }
      default:
        return Damaged();
    }
  }

 private:
  static absl::Status Damaged() {
    return Failure(reasons::kTokenizerInvalid,
                   "tokenizer.model is damaged, or no SentencePiece model");
  }
  absl::StatusOr<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (left_.empty()) return Damaged();
      const uint8_t byte = static_cast<uint8_t>(left_.front());
      left_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return Damaged();
  }
  absl::StatusOr<Field> Fixed(size_t size, Field field) {
    if (left_.size() < size) return Damaged();
    std::memcpy(&field.value, left_.data(), size);
    left_.remove_prefix(size);
    return field;
  }

  absl::string_view left_;
};

absl::StatusOr<SentencePieces::Piece> ReadPiece(absl::string_view message) {
  SentencePieces::Piece piece;
  FieldReader fields(message);
  while (!fields.done()) {
    LWQ_ASSIGN_OR_RETURN(const Field field, fields.Next());
    if (field.number == 1) piece.text = std::string(field.bytes);
    if (field.number == 2) piece.score = field.AsFloat();
    if (field.number == 3) piece.type = static_cast<int32_t>(field.value);
  }
  if (piece.type < 1 || piece.type > 6) {
    return Failure(reasons::kTokenizerInvalid,
                   absl::StrCat("tokenizer.model has a piece of type ", piece.type));
  }
  return piece;
}

// Numbers of a message by their fields.
absl::Status ReadNumbers(absl::string_view message, uint32_t first_field, int64_t* first,
                         uint32_t second_field, int64_t* second) {
  FieldReader fields(message);
  while (!fields.done()) {
    LWQ_ASSIGN_OR_RETURN(const Field field, fields.Next());
    if (field.number == first_field) *first = static_cast<int64_t>(field.value);
    if (field.number == second_field) *second = static_cast<int64_t>(field.value);
  }
  return absl::OkStatus();
}

// Whether a field of a message is there and not empty.
absl::StatusOr<bool> HasBytes(absl::string_view message, uint32_t number) {
  bool found = false;
  FieldReader fields(message);
  while (!fields.done()) {
    LWQ_ASSIGN_OR_RETURN(const Field field, fields.Next());
    found |= field.number == number && !field.bytes.empty();
  }
  return found;
}

}  // namespace

absl::StatusOr<SentencePieces> ReadSentencePieces(absl::string_view serialized) {
  constexpr uint32_t kPieces = 1, kTrainer = 2, kNormalizer = 3, kCharacterMap = 2;
  SentencePieces model;
  int64_t model_type = 1, prefix = 1, whitespaces = 1, ignored = 0;
  FieldReader fields(serialized);
  while (!fields.done()) {
    LWQ_ASSIGN_OR_RETURN(const Field field, fields.Next());
    if (field.number == kPieces) {
      LWQ_ASSIGN_OR_RETURN(SentencePieces::Piece piece, ReadPiece(field.bytes));
      model.pieces.push_back(std::move(piece));
    } else if (field.number == kTrainer) {
      LWQ_RETURN_IF_ERROR(ReadNumbers(field.bytes, 3, &model_type, 0, &ignored));
    } else if (field.number == kNormalizer) {
      LWQ_RETURN_IF_ERROR(ReadNumbers(field.bytes, 3, &prefix, 4, &whitespaces));
      LWQ_ASSIGN_OR_RETURN(model.normalizes, HasBytes(field.bytes, kCharacterMap));
    }
  }
  model.model_type = static_cast<int32_t>(model_type);
  model.add_dummy_prefix = prefix != 0;
  model.remove_extra_whitespaces = whitespaces != 0;
  return model;
}

}  // namespace lwq
