#include "worker/engine/format/row_tiles.h"

#include <algorithm>
#include <utility>

namespace lwq {
namespace {

constexpr int64_t kRowMultiple = 32;

}  // namespace

int64_t TileRows(int64_t out_features, int64_t in_features, int64_t tile_weights) {
  const int64_t fit = tile_weights / std::max<int64_t>(in_features, 1);
  return std::min(out_features, std::max(kRowMultiple, fit / kRowMultiple * kRowMultiple));
}

void AppendRows(EncodedLinear rows, int64_t num_rows, int64_t all_rows, EncodedLinear& all) {
  if (all.empty()) {
    all = std::move(rows);
    if (num_rows == all_rows) return;
    for (EncodedPart& part : all) {
      part.bytes.reserve(part.bytes.size() * static_cast<size_t>(all_rows) /
                         static_cast<size_t>(num_rows));
    }
    return;
  }
  // Rows, or words of rows, are the first dimension of every part.
  for (size_t p = 0; p < all.size(); ++p) {
    all[p].spec.shape[0] += rows[p].spec.shape[0];
    all[p].bytes += rows[p].bytes;
  }
}

}  // namespace lwq
