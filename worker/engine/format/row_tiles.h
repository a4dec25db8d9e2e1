// Linears that are quantized some rows at a time: how many, and the results put together again.
#pragma once

#include <cstdint>

#include "worker/engine/format/weight_format.h"

namespace lwq {

// About `tile_weights` weights of a linear [out, in], in whole rows, of which so many that what is
// packed along rows ends with a whole word: a multiple of 32, unless the linear has fewer.
int64_t TileRows(int64_t out_features, int64_t in_features, int64_t tile_weights);

// Puts `rows`, the next num_rows of a linear of all_rows, behind those that `all`, empty at first,
// has of it in the same format. Room for all rows is taken at once: growing would take twice as
// much.
void AppendRows(EncodedLinear rows, int64_t num_rows, int64_t all_rows, EncodedLinear& all);

}  // namespace lwq
