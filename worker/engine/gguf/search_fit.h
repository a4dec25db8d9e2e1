// kSearch of block_fit.h. Internal to this folder.
#pragma once

#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/level_set.h"

namespace lwq {

// Scales, minima and codes of one block by search. `importance` [block_size] is not null; every
// sub-block has one that is positive.
void FitBySearch(const GgufTypeDef& type, const LevelSet& levels, const float* values,
                 const float* importance, GgufBlock* block);

}  // namespace lwq
