// Finding stored linears among tensors. docs/formats/compressed_tensors.md.
#include "worker/engine/artifact/compressed_tensors.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/format/pack_bits.h"

namespace lwq {
namespace {

absl::Status PackedShape(absl::string_view module, absl::string_view suffix,
                         const TensorView& found, absl::string_view expected) {
  return CorruptFailure("PACKED_SHAPE",
                        absl::StrCat("tensor ", module, suffix, " is ", NameOf(found.dtype), " [",
                                     absl::StrJoin(found.shape, ", "), "], expected ", expected));
}

// The width, and in_features as weight_shape says, checked against the packed tensor's own shape.
absl::StatusOr<int> ReadShape(absl::string_view module, const TensorView& packed,
                              const TensorView& shape, StoredLinear& stored) {
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
                                   const StoredLinear& stored) {
  const std::vector<int64_t>& shape = scale.shape;
  if (shape.size() != 2 || shape[0] != stored.out_features || shape[1] <= 0 ||
      stored.in_features % shape[1] != 0 || !IsWeightFloat(scale.dtype)) {
    return PackedShape(module, ".weight_scale", scale,
                       absl::StrCat("F16, BF16 or F32 [", stored.out_features,
                                    ", groups] with groups dividing ", stored.in_features));
  }
  return shape[1] == 1 ? 0 : stored.in_features / shape[1];
}

}  // namespace

absl::StatusOr<StoredLinear> FindStoredLinear(absl::string_view module, TensorLookup lookup) {
  const auto name = [&](absl::string_view suffix) { return absl::StrCat(module, suffix); };
  LWQ_ASSIGN_OR_RETURN(TensorView packed, lookup(name(".weight_packed")));
  LWQ_ASSIGN_OR_RETURN(TensorView scale, lookup(name(".weight_scale")));
  LWQ_ASSIGN_OR_RETURN(TensorView shape, lookup(name(".weight_shape")));
  if (lookup(name(".weight_g_idx")).ok()) {
    return Failure(absl::StatusCode::kUnimplemented, "QUANT_FORMAT_UNSUPPORTED",
                   absl::StrCat(module,
                                " is stored in activation order (weight_g_idx), which lwq "
                                "does not read"));
  }
  absl::StatusOr<TensorView> zero_point = lookup(name(".weight_zero_point"));
  StoredLinear stored;
  LWQ_ASSIGN_OR_RETURN(const int bits, ReadShape(module, packed, shape, stored));
  LWQ_ASSIGN_OR_RETURN(const int64_t group_size, ReadGroups(module, scale, stored));
  const int64_t num_groups = scale.shape[1];
  stored.format = GridFormat::Find(bits, group_size, /*symmetric=*/!zero_point.ok());
  stored.parts = {std::move(packed), std::move(scale)};
  if (zero_point.ok()) {
    const std::vector<int64_t> expected = {PackedWords(stored.out_features, bits), num_groups};
    if (zero_point->dtype != DType::kI32 || zero_point->shape != expected) {
      return PackedShape(module, ".weight_zero_point", *zero_point,
                         absl::StrCat("I32 [", absl::StrJoin(expected, ", "), "]"));
    }
    stored.parts.push_back(*std::move(zero_point));
  }
  return stored;
}

bool SameStorage(const WeightFormat& declared, const StoredLinear& found) {
  const GridFormat* a = declared.grid();
  const GridFormat* b = found.format->grid();
  if (a == nullptr || b == nullptr) return &declared == found.format;
  const auto group = [&](const GridFormat* grid) {
    return grid->group_size() == 0 ? found.in_features : grid->group_size();
  };
  return a->bits() == b->bits() && a->symmetric() == b->symmetric() && group(a) == group(b);
}

std::string WeightShapeBytes(int64_t out_features, int64_t in_features) {
  const int64_t dimensions[2] = {out_features, in_features};
  std::string bytes(sizeof(dimensions), '\0');
  std::memcpy(bytes.data(), dimensions, sizeof(dimensions));
  return bytes;
}

}  // namespace lwq
