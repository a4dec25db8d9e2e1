#include "worker/engine/artifact/grid_to_gguf.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

constexpr int64_t kBlock = 32;

// How far below zero the integers of those types go.
int LowestOf(GgufType type) {
  return type == GgufType::kQ4_0 ? -8 : type == GgufType::kQ5_0 ? -16 : -128;
}

}  // namespace

const GgufFormat* GgufFormatOf(const GridFormat& grid) {
  if (grid.group_size() % kBlock != 0) return nullptr;
  const int bits = grid.symmetric() ? grid.bits() : grid.bits() + 1;
  if (bits > GridFormat::kMaxBits) return nullptr;
  const GgufType type = bits <= 4 ? GgufType::kQ4_0 : bits == 5 ? GgufType::kQ5_0 : GgufType::kQ8_0;
  return GgufFormat::Find(DefOf(type));
}

absl::StatusOr<EncodedLinear> EncodeAsGguf(absl::string_view module, const StoredLinear& stored) {
  const GridFormat& grid = *stored.format->grid();
  const GgufFormat& format = *GgufFormatOf(grid);
  const GgufTypeDef& type = format.type();
  LWQ_ASSIGN_OR_RETURN(const GridCodes linear, grid.Decode(module, stored));
  EncodedLinear encoded;
  for (PartSpec& spec : format.Parts(stored.out_features, stored.in_features, DType::kF16)) {
    std::string bytes(static_cast<size_t>(spec.size_bytes()), '\0');
    encoded.push_back({std::move(spec), std::move(bytes)});
  }
  auto* out = reinterpret_cast<uint8_t*>(encoded[0].bytes.data());
  const int lowest = LowestOf(type.type);
  const int64_t group_size = stored.in_features / grid.NumGroups(stored.in_features);
  for (int64_t r = 0; r < stored.out_features; ++r) {
    for (int64_t k = 0; k < stored.in_features; k += kBlock, out += type.block_bytes) {
      const int64_t g = k / group_size;
      const float scale = linear.scales.Row(r)[g];
      GgufBlock block = {};
      block.scale = FloatToF16(scale);
      if (F16ToFloat(block.scale) != scale) {
        return Failure(reasons::kFormatUnsupported,
                       absl::StrCat(module, ": the scale ", scale, " is not exact in F16"));
      }
      block.sub_scales[0] = 1;
      const int zero = grid.symmetric() ? 1 << (grid.bits() - 1)
                                        : static_cast<int>(linear.zeros.Row(r)[g]);
      const uint8_t* codes = linear.codes.data() + r * stored.in_features + k;
      for (int i = 0; i < kBlock; ++i) {
        block.codes[i] = static_cast<uint8_t>(codes[i] - zero - lowest);
      }
      type.shape->pack(block, out);
    }
  }
  return encoded;
}

}  // namespace lwq
