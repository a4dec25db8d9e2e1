// kReference of block_fit.h. Internal to this folder.
#pragma once

#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/level_set.h"

namespace lwq {

// Scales, minima and codes of one block from the extremes of its values.
void FitByExtremes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                   GgufBlock* block);

// The codes of every value under the block's scales and minima.
void RoundCodes(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                GgufBlock* block);

}  // namespace lwq
