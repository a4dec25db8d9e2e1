// A checkpoint's weights as an artifact keeps them.
#pragma once

#include <memory>

#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {

// As MakeCheckpointWeights (weight_source.h), but of tensors that an artifact keeps in a narrower
// type than they are read in (KeptAs of io/stored_rows.h: blocks of a GGUF file) the numbers
// rounded to it. `checkpoint` must outlive it.
std::unique_ptr<WeightSource> MakeKeptWeights(const Checkpoint* checkpoint);

}  // namespace lwq
