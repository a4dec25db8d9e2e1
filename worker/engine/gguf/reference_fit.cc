// Scales from extremes. The types without sub-blocks follow ggml's reference, whose codes are those
// of the scale before it is rounded to F16; the others round under the scales that are stored.
#include "worker/engine/gguf/reference_fit.h"

#include <algorithm>
#include <cmath>

namespace lwq {
namespace {

// Of equal magnitudes the first.
float LargestMagnitude(const float* values, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    if (std::abs(values[i]) > std::abs(largest)) largest = values[i];
  }
  return largest;
}

// The scale that takes the largest magnitude to the lowest level, which has no counterpart above
// zero; with 256 levels that one is not used. Of a codebook, whose signs are apart, to the last
// one.
float ExtremeScale(const LevelSet& levels, const float* values, int count) {
  const float largest = LargestMagnitude(values, count);
  if (levels.size() == 256 || levels.codebook() != nullptr)
    return std::abs(largest) / levels.last();
  return largest / levels.first();
}

struct Range {
  float step;
  float offset;  // subtracted
};
Range ExtremeRange(const GgufBlockShape& shape, const LevelSet& levels, const float* values,
                   int count) {
  const auto [min, max] = std::minmax_element(values, values + count);
  const float low = shape.min_has_sign ? *min : std::min(*min, 0.0f);
  return {(*max - low) / levels.last(), -low};
}

void RoundSymmetric(const LevelSet& levels, const float* values, int count, float scale,
                    uint8_t* codes) {
  const float inverse = InverseStep(scale);
  for (int i = 0; i < count; ++i) {
    // 8-bit codes round halves away from zero, as C's roundf.
    const float v = values[i] * inverse;
    codes[i] = static_cast<uint8_t>(levels.NearestCode(levels.size() == 256 ? std::round(v) : v));
  }
}

void FitSmallBlock(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                   GgufBlock* block) {
  const GgufBlockShape& shape = *type.shape;
  block->sub_scales[0] = 1;
  if (shape.max_sub_min == 0) {
    const float scale = ExtremeScale(levels, values, type.block_size);
    block->scale = ToFiniteF16(scale);
    RoundSymmetric(levels, values, type.block_size, scale, block->codes);
    return;
  }
  const Range range = ExtremeRange(shape, levels, values, type.block_size);
  block->scale = ToFiniteF16(range.step);
  block->min = ToFiniteF16(range.offset);
  block->sub_mins[0] = 1;
  const float inverse = InverseStep(range.step);
  for (int i = 0; i < type.block_size; ++i) {
    const float v = (values[i] + range.offset) * inverse;
    block->codes[i] = static_cast<uint8_t>(levels.NearestCode(v));
  }
}

}  // namespace

void RoundCodes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                const float* importance, GgufBlock* block) {
  const int size = type.sub_block_size();
  if (const Codebook* codebook = levels.codebook(); codebook != nullptr) {
    const int cell = codebook->cell_size();
    for (int begin = 0; begin < type.block_size; begin += cell) {
      const float inverse = InverseStep(block->Step(begin / size));
      float v[Codebook::kMaxCell], w[Codebook::kMaxCell];
      for (int i = 0; i < cell; ++i) {
        v[i] = values[begin + i] * inverse;
        w[i] = importance == nullptr ? 1.0f : importance[begin + i];
      }
      codebook->Round(v, w, block->codes + begin);
    }
    return;
  }
  for (int i = 0; i < type.block_size; ++i) {
    const int j = i / size;
    const float v = (values[i] + block->Offset(j)) * InverseStep(block->Step(j));
    block->codes[i] = static_cast<uint8_t>(levels.NearestCode(v));
  }
}

int NearestSubScale(const GgufBlockShape& shape, float value, float unit) {
  const float low = static_cast<float>(shape.min_sub_scale);
  const float high = static_cast<float>(shape.max_sub_scale);
  float multiple = value * InverseStep(unit);
  if (shape.sub_scale_step == 1) {
    multiple = std::nearbyint(multiple);
  } else {
    const float step = static_cast<float>(shape.sub_scale_step);
    multiple = low + step * std::nearbyint((multiple - low) / step);
  }
  return static_cast<int>(std::clamp(multiple, low, high));
}

void FitByExtremes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                   GgufBlock* block) {
  *block = GgufBlock();
  const GgufBlockShape& shape = *type.shape;
  if (shape.sub_blocks == 1) return FitSmallBlock(type, levels, values, block);
  const int size = type.sub_block_size();
  float steps[kMaxGgufSubBlocks];
  float offsets[kMaxGgufSubBlocks] = {};
  for (int j = 0; j < shape.sub_blocks; ++j) {
    if (shape.max_sub_min == 0) {
      steps[j] = ExtremeScale(levels, values + j * size, size);
    } else {
      const Range range = ExtremeRange(shape, levels, values + j * size, size);
      steps[j] = range.step;
      offsets[j] = range.offset;
    }
  }
  // Scales of both signs reach further below zero.
  const float reach =
      static_cast<float>(shape.min_sub_scale < 0 ? shape.min_sub_scale : shape.max_sub_scale);
  block->scale = ToFiniteF16(LargestMagnitude(steps, shape.sub_blocks) / reach);
  float inverse_min = 0;
  if (shape.max_sub_min > 0) {
    block->min = ToFiniteF16(*std::max_element(offsets, offsets + shape.sub_blocks) /
                             static_cast<float>(shape.max_sub_min));
    inverse_min = InverseStep(F16ToFloat(block->min));
  }
  for (int j = 0; j < shape.sub_blocks; ++j) {
    block->sub_scales[j] =
        static_cast<int8_t>(NearestSubScale(shape, steps[j], F16ToFloat(block->scale)));
    block->sub_mins[j] = static_cast<uint8_t>(std::clamp(
        std::nearbyint(offsets[j] * inverse_min), 0.0f, static_cast<float>(shape.max_sub_min)));
  }
  RoundCodes(type, levels, values, nullptr, block);
}

}  // namespace lwq
