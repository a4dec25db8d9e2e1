#include "worker/engine/device/cuda/query_tiles.h"

#include <algorithm>

namespace lwq::cuda {
namespace {

// The list of a segment: its ancestors, the eldest first, and itself.
std::vector<KeyRange> RangesOf(absl::Span<const Segment> segments, int segment) {
  std::vector<KeyRange> ranges;
  for (int s = segment; s >= 0; s = segments[s].parent) {
    ranges.push_back(
        {static_cast<int32_t>(segments[s].begin), static_cast<int32_t>(segments[s].size), 0});
  }
  std::reverse(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    ranges[i].first = ranges[i - 1].first + ranges[i - 1].size;
  }
  return ranges;
}

}  // namespace

AttentionPlan PlanAttention(absl::Span<const Segment> segments) {
  AttentionPlan plan;
  for (int s = 0; s < static_cast<int>(segments.size()); ++s) {
    const std::vector<KeyRange> ranges = RangesOf(segments, s);
    QueryTile tile;
    tile.first_range = static_cast<int32_t>(plan.ranges.size());
    tile.num_ranges = static_cast<int32_t>(ranges.size());
    plan.ranges.insert(plan.ranges.end(), ranges.begin(), ranges.end());
    const KeyRange& own = ranges.back();
    for (int32_t i = 0; i < own.size; i += kQueryTile) {
      tile.row = own.row + i;
      tile.place = own.first + i;
      tile.count = std::min(kQueryTile, own.size - i);
      plan.tiles.push_back(tile);
    }
  }
  std::stable_sort(
      plan.tiles.begin(), plan.tiles.end(),
      [](const QueryTile& a, const QueryTile& b) { return a.place + a.count > b.place + b.count; });
  return plan;
}

}  // namespace lwq::cuda
