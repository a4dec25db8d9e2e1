// Linears that are quantized some rows at a time: how many, and the results put together again.
#pragma once

#include <cstdint>

#include "worker/engine/format/weight_format.h"

namespace lwq {

// About `tile_weights` weights of a linear [out, in], in whole rows, of which so many that what is
// packed along rows ends with a whole word: a multiple of 32, unless the linear has fewer.
int64_t TileRows(int64_t out_features, int64_t in_features, int64_t tile_weights);

// `all` becomes its rows and, behind them, `rows` of the same linear in the same format. Starts
// with an `all` that is empty.
void AppendRows(EncodedLinear rows, EncodedLinear& all);

}  // namespace lwq
