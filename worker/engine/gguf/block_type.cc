#include "worker/engine/gguf/block_type.h"

namespace lwq {

#define LWQ_GGUF_TYPE(name) extern const GgufTypeDef gguf_type_##name;
#include "worker/engine/gguf/gguf_types.def"
#undef LWQ_GGUF_TYPE

namespace {

constexpr const GgufTypeDef* kTypes[] = {
#define LWQ_GGUF_TYPE(name) &gguf_type_##name,
#include "worker/engine/gguf/gguf_types.def"
#undef LWQ_GGUF_TYPE
};

}  // namespace

absl::Span<const GgufTypeDef* const> GgufTypes() { return kTypes; }

const GgufTypeDef* FindGgufType(uint32_t number) {
  for (const GgufTypeDef* type : kTypes) {
    if (static_cast<uint32_t>(type->type) == number) return type;
  }
  return nullptr;
}

const GgufTypeDef* FindGgufType(absl::string_view name) {
  for (const GgufTypeDef* type : kTypes) {
    if (type->name == name) return type;
  }
  return nullptr;
}

const GgufTypeDef& DefOf(GgufType type) { return *FindGgufType(static_cast<uint32_t>(type)); }

void UnpackBlock(const GgufTypeDef& type, const uint8_t* bytes, GgufBlock* block) {
  const BlockLayout& layout = *type.shape->layout;
  UnpackBlockCodes(layout, bytes, block->codes);
  for (int j = 0; j < type.shape->sub_blocks; ++j) {
    block->sub_scales[j] = static_cast<int8_t>(layout.SubScale(bytes, j));
    block->sub_mins[j] = static_cast<uint8_t>(layout.SubMin(bytes, j));
  }
  block->scale = BlockLayout::HalfAt(bytes, layout.scale_at);
  block->min = layout.min_at < 0 ? uint16_t{0} : BlockLayout::HalfAt(bytes, layout.min_at);
  if (layout.min_added) block->min ^= 0x8000u;  // its sign, which is exact
}

void DequantizeRow(const GgufTypeDef& type, const uint8_t* bytes, int64_t cols, float* out) {
  const GgufBlockShape* shape = type.shape;
  if (shape == nullptr) {
    for (int64_t i = 0; i < cols; ++i) out[i] = type.load(bytes + i * type.block_bytes);
    return;
  }
  const int size = type.sub_block_size();
  GgufBlock block;
  for (int64_t b = 0; b < cols / type.block_size; ++b) {
    UnpackBlock(type, bytes + b * type.block_bytes, &block);
    const uint8_t* codes = block.codes;
    for (int j = 0; j < shape->sub_blocks; ++j, codes += size, out += size) {
      const float step = block.Step(j);
      const float offset = block.Offset(j);
      for (int i = 0; i < size; ++i) {
        out[i] = step * static_cast<float>(shape->levels[codes[i]]) - offset;
      }
    }
  }
}

}  // namespace lwq
