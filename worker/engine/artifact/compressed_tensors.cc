#include "worker/engine/artifact/compressed_tensors.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {
namespace {

absl::Status PackedShape(absl::string_view module, absl::string_view suffix,
                         const TensorView& found, absl::string_view expected) {
  return Failure(reasons::kPackedShape,
                 absl::StrCat("tensor ", module, suffix, " is ", NameOf(found.dtype), " [",
                              absl::StrJoin(found.shape, ", "), "], expected ", expected));
}

// The width, and in_features as weight_shape says, checked against the packed tensor's own shape.
absl::StatusOr<int> ReadShape(absl::string_view module, const TensorView& packed,
                              const TensorView& shape, FoundLinear& stored) {
  if (shape.dtype != DType::kI64 || shape.num_elements() != 2) {
    return PackedShape(module, ".weight_shape", shape, "I64 [2]");
  }
  int64_t values[2];
  std::memcpy(values, shape.bytes.data(), sizeof(values));
  const std::vector<int64_t>& words = packed.shape;
  // 32 codes of b bits are b words: the words of a row decide the width.
  const bool plausible = words.size() == 2 && values[0] == words[0] && values[0] > 0 &&
                         values[1] > 0 && words[1] > 0 && values[1] / 32 <= words[1] &&
                         values[1] % 32 == 0 && words[1] % (values[1] / 32) == 0 &&
                         words[1] / (values[1] / 32) <= GridFormat::kMaxBits;
  if (packed.dtype != DType::kI32 || !plausible) {
    return PackedShape(
        module, ".weight_packed", packed,
        absl::StrCat("I32 [", values[0], ", bits * ", values[1],
                     " / 32] for a width of 1 to 8 bits (rows of a multiple of 32)"));
  }
  stored.out_features = values[0];
  stored.in_features = values[1];
  return static_cast<int>(words[1] / (values[1] / 32));
}

// The group size; 0 for one group per row.
absl::StatusOr<int64_t> ReadGroups(absl::string_view module, const TensorView& scale,
                                   const FoundLinear& stored) {
  const std::vector<int64_t>& shape = scale.shape;
  if (shape.size() != 2 || shape[0] != stored.out_features || shape[1] <= 0 ||
      stored.in_features % shape[1] != 0 || !IsWeightFloat(scale.dtype)) {
    return PackedShape(module, ".weight_scale", scale,
                       absl::StrCat("F16, BF16 or F32 [", stored.out_features,
                                    ", groups] with groups dividing ", stored.in_features));
  }
  return shape[1] == 1 ? 0 : stored.in_features / shape[1];
}

// A linear of a byte a weight, multiplied in 8 bits.
absl::StatusOr<FoundLinear> FindEightBit(absl::string_view module, TensorView weight,
                                         TensorView scale,
                                         const std::vector<const WeightFormat*>& declared) {
  FoundLinear found;
  found.format = GridFormat::WithRoundedInputs();
  if (weight.dtype == DType::kF8E4M3) found.format = Fp8RowFormat::Find();
  const bool matrix =
      weight.shape.size() == 2 && (weight.dtype == DType::kI8 || weight.dtype == DType::kF8E4M3);
  if (!matrix || !found.format->Accepts(weight.shape[0], weight.shape[1]).ok()) {
    return PackedShape(module, ".weight", weight,
                       "I8 or F8_E4M3 [out_features, in_features], both multiples of 32 or 16");
  }
  if (scale.shape != std::vector<int64_t>{weight.shape[0], 1} || !IsWeightFloat(scale.dtype)) {
    return PackedShape(module, ".weight_scale", scale,
                       absl::StrCat("F16, BF16 or F32 [", weight.shape[0], ", 1]"));
  }
  found.out_features = weight.shape[0];
  found.in_features = weight.shape[1];
  found.tensors = {std::move(weight), std::move(scale)};
  LWQ_RETURN_IF_ERROR(CheckDeclared(module, found, declared));
  return found;
}

// Codes of 8 bits with their zero at 128 to integers with theirs at 0, and back.
std::string FlipSigns(absl::Span<const uint8_t> codes) {
  std::string flipped(codes.begin(), codes.end());
  for (char& code : flipped) code = static_cast<char>(code ^ 0x80);
  return flipped;
}

TensorView ViewOf(DType dtype, std::vector<int64_t> shape, const std::string& bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  return {dtype, std::move(shape), {data, bytes.size()}};
}

class Coding final : public LinearCoding {
 public:
  absl::string_view mark() const override { return ".weight_scale"; }

  absl::StatusOr<FoundLinear> Find(
      absl::string_view module, TensorLookup lookup,
      const std::vector<const WeightFormat*>& declared) const override {
    const auto name = [&](absl::string_view suffix) { return absl::StrCat(module, suffix); };
    LWQ_ASSIGN_OR_RETURN(TensorView scale, lookup(name(".weight_scale")));
    absl::StatusOr<TensorView> whole = lookup(name(".weight"));
    if (whole.ok()) {
      return FindEightBit(module, *std::move(whole), std::move(scale), declared);
    }
    LWQ_ASSIGN_OR_RETURN(TensorView packed, lookup(name(".weight_packed")));
    LWQ_ASSIGN_OR_RETURN(TensorView shape, lookup(name(".weight_shape")));
    if (lookup(name(".weight_g_idx")).ok()) {
      return Failure(reasons::kQuantFormatUnsupported,
                     absl::StrCat(module,
                                  " is stored in activation order (weight_g_idx), which lwq "
                                  "does not read"));
    }
    absl::StatusOr<TensorView> zero_point = lookup(name(".weight_zero_point"));
    FoundLinear found;
    LWQ_ASSIGN_OR_RETURN(const int bits, ReadShape(module, packed, shape, found));
    LWQ_ASSIGN_OR_RETURN(const int64_t group_size, ReadGroups(module, scale, found));
    const int64_t num_groups = scale.shape[1];
    found.format = GridFormat::Find(bits, group_size, /*symmetric=*/!zero_point.ok());
    found.tensors = {std::move(packed), std::move(scale)};
    if (zero_point.ok()) {
      const std::vector<int64_t> expected = {PackedWords(found.out_features, bits), num_groups};
      if (zero_point->dtype != DType::kI32 || zero_point->shape != expected) {
        return PackedShape(module, ".weight_zero_point", *zero_point,
                           absl::StrCat("I32 [", absl::StrJoin(expected, ", "), "]"));
      }
      found.tensors.push_back(*std::move(zero_point));
    }
    LWQ_RETURN_IF_ERROR(CheckDeclared(module, found, declared));
    return found;
  }

  absl::StatusOr<OwnedLinear> Read(absl::string_view, const FoundLinear& found) const override {
    OwnedLinear owned{{found.format, found.out_features, found.in_features, found.tensors}, {}};
    if (found.tensors[0].dtype != DType::kI8) return owned;
    owned.bytes.push_back(FlipSigns(found.tensors[0].bytes));
    const std::vector<int64_t> words = {found.out_features, found.in_features / 4};
    owned.linear.parts[0] = ViewOf(DType::kI32, words, owned.bytes[0]);
    return owned;
  }

  absl::StatusOr<TensorView> Tensor(absl::string_view name, const StoredLinear& linear,
                                    std::string& made) const override {
    if (absl::EndsWith(name, ".weight_packed")) return linear.parts[0];
    if (absl::EndsWith(name, ".weight_scale")) return linear.parts[1];
    if (absl::EndsWith(name, ".weight_zero_point")) return linear.parts[2];
    if (absl::EndsWith(name, ".weight")) {
      if (linear.format->fp8() != nullptr) return linear.parts[0];
      made = FlipSigns(linear.parts[0].bytes);
      return ViewOf(DType::kI8, {linear.out_features, linear.in_features}, made);
    }
    made = WeightShapeBytes(linear.out_features, linear.in_features);
    return ViewOf(DType::kI64, {2}, made);
  }
};

}  // namespace

const LinearCoding& CompressedTensorsCoding() {
  static const auto& coding = *new Coding();
  return coding;
}

std::string WeightShapeBytes(int64_t out_features, int64_t in_features) {
  const int64_t dimensions[2] = {out_features, in_features};
  std::string bytes(sizeof(dimensions), '\0');
  std::memcpy(bytes.data(), dimensions, sizeof(dimensions));
  return bytes;
}

}  // namespace lwq
