// A batch as devices that compute on the host keep it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/device.h"

namespace lwq {

class HostBatch : public DeviceBatch {
 public:
  // INVALID_ARGUMENT for segments that do not fit the rows, or a negative position.
  static absl::StatusOr<std::unique_ptr<DeviceBatch>> Create(absl::Span<const Segment> segments,
                                                             absl::Span<const int32_t> positions) {
    LWQ_RETURN_IF_ERROR(CheckSegments(segments, static_cast<int64_t>(positions.size())));
    for (const int32_t position : positions) {
      if (position >= 0) continue;
      return absl::InvalidArgumentError(absl::StrCat("a batch has a row at position ", position));
    }
    return std::unique_ptr<DeviceBatch>(
        new HostBatch({segments.begin(), segments.end()}, {positions.begin(), positions.end()}));
  }
  // INVALID_ARGUMENT for one that another device made.
  static absl::StatusOr<const HostBatch*> Of(const DeviceBatch& batch) {
    const auto* own = dynamic_cast<const HostBatch*>(&batch);
    if (own == nullptr) return absl::InvalidArgumentError("the batch was made by another device");
    return own;
  }

  int64_t rows() const override { return static_cast<int64_t>(positions_.size()); }
  const std::vector<Segment>& segments() const { return segments_; }
  const std::vector<int32_t>& positions() const { return positions_; }
  // Which segments have their queries among the batch's last `rows` rows; INVALID_ARGUMENT where
  // one has some of them there.
  absl::StatusOr<std::vector<int>> SegmentsInLast(int64_t rows) const {
    const int64_t first = this->rows() - rows;
    LWQ_RETURN_IF_ERROR(CheckQueryRows(segments_, first));
    std::vector<int> inside;
    for (size_t s = 0; s < segments_.size(); ++s) {
      if (segments_[s].begin >= first) inside.push_back(static_cast<int>(s));
    }
    return inside;
  }
  // The largest, -1 where there are no rows.
  int32_t last_position() const { return last_position_; }

 private:
  HostBatch(std::vector<Segment> segments, std::vector<int32_t> positions)
      : segments_(std::move(segments)),
        positions_(std::move(positions)),
        last_position_(
            positions_.empty() ? -1 : *std::max_element(positions_.begin(), positions_.end())) {}
  const std::vector<Segment> segments_;
  const std::vector<int32_t> positions_;
  const int32_t last_position_;
};

// A table of rotations in host memory: cosine and sine of position p's pair i at [p, i].
template <typename T>
class HostRopeTable : public RopeTable {
 public:
  HostRopeTable(const RopeSettings& settings, int64_t num_positions)
      : half_(static_cast<int64_t>(settings.inverse_frequency.size())),
        head_dim_(settings.head_dim == 0 ? static_cast<int>(2 * half_) : settings.head_dim),
        num_positions_(num_positions),
        cosine_(static_cast<size_t>(half_ * num_positions)),
        sine_(cosine_.size()) {}
  // INVALID_ARGUMENT for one that another device made.
  static absl::StatusOr<const HostRopeTable*> Of(const RopeTable& table) {
    const auto* own = dynamic_cast<const HostRopeTable*>(&table);
    if (own == nullptr) return absl::InvalidArgumentError("the table was made by another device");
    return own;
  }

  int head_dim() const override { return head_dim_; }
  int64_t num_positions() const override { return num_positions_; }
  int64_t half() const { return half_; }
  T* cosine(int64_t position) { return cosine_.data() + position * half_; }
  T* sine(int64_t position) { return sine_.data() + position * half_; }
  const T* cosine(int64_t position) const { return cosine_.data() + position * half_; }
  const T* sine(int64_t position) const { return sine_.data() + position * half_; }

 private:
  const int64_t half_;
  const int head_dim_;
  const int64_t num_positions_;
  std::vector<T> cosine_, sine_;
};

}  // namespace lwq
