// F32, F16 and BF16: blocks of one value.
#include <cstring>

#include "worker/engine/gguf/block_bytes.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

float LoadF32(const uint8_t* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}
void StoreF32(float value, uint8_t* bytes) { std::memcpy(bytes, &value, sizeof(value)); }

float LoadF16(const uint8_t* bytes) { return F16ToFloat(LoadU16(bytes)); }
void StoreF16(float value, uint8_t* bytes) { StoreU16(FloatToF16(value), bytes); }

float LoadBF16(const uint8_t* bytes) { return BF16ToFloat(LoadU16(bytes)); }
void StoreBF16(float value, uint8_t* bytes) { StoreU16(FloatToBF16(value), bytes); }

}  // namespace

extern const GgufTypeDef gguf_type_f32, gguf_type_f16, gguf_type_bf16;
constinit const GgufTypeDef gguf_type_f32 = {.type = GgufType::kF32,
                                             .name = "F32",
                                             .block_size = 1,
                                             .block_bytes = 4,
                                             .load = &LoadF32,
                                             .store = &StoreF32};
constinit const GgufTypeDef gguf_type_f16 = {.type = GgufType::kF16,
                                             .name = "F16",
                                             .block_size = 1,
                                             .block_bytes = 2,
                                             .load = &LoadF16,
                                             .store = &StoreF16};
constinit const GgufTypeDef gguf_type_bf16 = {.type = GgufType::kBF16,
                                              .name = "BF16",
                                              .block_size = 1,
                                              .block_bytes = 2,
                                              .load = &LoadBF16,
                                              .store = &StoreBF16};

}  // namespace lwq
