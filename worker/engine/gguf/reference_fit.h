// kReference of block_fit.h. Internal to this folder.
#pragma once

#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/level_set.h"

namespace lwq {

// Scales, minima and codes of one block from the extremes of its values.
void FitByExtremes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                   GgufBlock* block);

// The codes of every value under the block's scales and minima; with a codebook those of least
// error by `importance` [block_size], null: equal.
void RoundCodes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                const float* importance, GgufBlock* block);

// The multiple of `unit` nearest to `value` that a sub-block's scale may be.
int NearestSubScale(const GgufBlockShape& shape, float value, float unit);

}  // namespace lwq
