// Shape checks shared by the devices, so that the same mistake gets the same INVALID_ARGUMENT on
// each.
#pragma once

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/device/device.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {

// Requires `m`, a view of either memory, to be [rows, cols] with a stride no shorter than its rows.
template <typename View>
absl::Status CheckShape(absl::string_view what, const View& m, int64_t rows, int64_t cols) {
  if (m.rows == rows && m.cols == cols && (m.stride >= m.cols || m.rows <= 1)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(what, " is [", m.rows, ", ", m.cols, "] (stride ",
                                                 m.stride, "), expected [", rows, ", ", cols, "]"));
}

// What CheckFinite says of the first element that is not.
inline absl::Status NotFinite(absl::string_view what, int64_t row, int64_t col, float value) {
  return Failure(reasons::kNonFiniteWeights,
                 absl::StrCat(what, ": element [", row, ", ", col, "] is ", value,
                              "; the source model is damaged"));
}

inline absl::Status CheckLength(absl::string_view what, int64_t found, int64_t expected) {
  if (found == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " has ", found, " elements, expected ", expected));
}

// Requires [first, first + count) to lie inside [0, limit).
inline absl::Status CheckRange(absl::string_view what, int64_t first, int64_t count,
                               int64_t limit) {
  if (first >= 0 && count >= 0 && count <= limit - first) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " covers ", count, " from ", first, " on, expected within ", limit));
}

// Of Device::UnpackCodes.
inline absl::Status CheckPacked(DeviceView<const uint8_t> packed, int bits,
                                DeviceView<uint8_t> codes) {
  if (bits < 1 || bits > 8) {
    return absl::InvalidArgumentError(absl::StrCat("codes of ", bits, " bits, expected 1 to 8"));
  }
  return CheckShape("packed codes", packed, codes.rows, 4 * PackedWords(codes.cols, bits));
}

// Of Device::DequantizeBlocks.
inline absl::Status CheckBlocks(DeviceView<const uint8_t> blocks, const BlockLayout& layout,
                                DeviceView<float> weight) {
  if (layout.block_size < 1 || layout.block_size > kMaxBlockSize ||
      weight.cols % layout.block_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", weight.cols,
                                                   " weights in blocks of ", layout.block_size,
                                                   ", expected a divisor up to ", kMaxBlockSize));
  }
  return CheckShape("blocks", blocks, weight.rows,
                    weight.cols / layout.block_size * layout.block_bytes);
}

// Of Device::DequantizeE4M3.
inline absl::Status CheckE4M3(DeviceView<const uint8_t> codes, DeviceView<const float> scales,
                              DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckShape("codes", codes, weight.rows, weight.cols));
  return CheckShape("scales", scales, weight.rows, 1);
}

// from and to have the same rows; each of to's columns names one of from's.
template <typename T>
absl::Status CheckGather(HostView<const T> from, absl::Span<const int32_t> columns,
                         HostView<const T> to) {
  const auto outside = [&](int32_t column) { return column < 0 || column >= from.cols; };
  if (from.rows == to.rows && static_cast<int64_t>(columns.size()) == to.cols &&
      std::none_of(columns.begin(), columns.end(), outside)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("cannot gather ", columns.size(), " columns of [",
                                                 from.rows, ", ", from.cols, "] into [", to.rows,
                                                 ", ", to.cols, "]"));
}

// Rows that are gathered from, or added to, one of `limit` rows each.
inline absl::Status CheckRows(absl::Span<const int32_t> rows, int64_t expected, int64_t limit) {
  const auto outside = [&](int32_t row) { return row < 0 || row >= limit; };
  if (static_cast<int64_t>(rows.size()) == expected &&
      std::none_of(rows.begin(), rows.end(), outside)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(rows.size(), " numbers of rows for ", expected, ", each below ", limit));
}

inline absl::Status CheckChosenExperts(DeviceView<const float> logits, DeviceView<int32_t> chosen,
                                       DeviceView<float> share) {
  if (chosen.cols < 1 || chosen.cols > logits.cols) {
    return absl::InvalidArgumentError(
        absl::StrCat("choosing ", chosen.cols, " of ", logits.cols, " experts"));
  }
  const absl::Status numbers = CheckShape("chosen experts", chosen, logits.rows, chosen.cols);
  return numbers.ok() ? CheckShape("shares of experts", share, logits.rows, chosen.cols) : numbers;
}

// Segments must lie inside `rows` and name only earlier parents.
inline absl::Status CheckSegments(absl::Span<const Segment> segments, int64_t rows) {
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    if (s.begin < 0 || s.size < 0 || s.begin + s.size > rows || s.parent < -1 ||
        s.parent >= static_cast<int32_t>(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment ", i, " [", s.begin, ", ", s.begin + s.size, ") with parent ",
                       s.parent, " does not fit ", rows, " rows or names no earlier segment"));
    }
  }
  return absl::OkStatus();
}

inline absl::Status CheckSums(DeviceView<const float> logits, const LogitSums& sums) {
  LWQ_RETURN_IF_ERROR(CheckLength("rows' largest logits", sums.top.size, logits.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' likeliest tokens", sums.best.size, logits.rows));
  return CheckLength("rows' sums", sums.total.size, logits.rows);
}

inline absl::Status CheckGaps(DeviceView<const float> source, DeviceSpan<const float> source_top,
                              DeviceView<const float> candidate, const LogitGaps& gaps) {
  LWQ_RETURN_IF_ERROR(CheckShape("candidate", candidate, source.rows, source.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("source's largest logits", source_top.size, source.rows));
  LWQ_RETURN_IF_ERROR(CheckLength("rows' largest logits", gaps.top.size, source.rows));
  return CheckLength("rows' sums", gaps.total.size, source.rows);
}

// Each place (rows[i], columns[i]) must lie in [num_rows, num_cols].
inline absl::Status CheckPlaces(absl::Span<const int32_t> rows, absl::Span<const int32_t> columns,
                                int64_t num_rows, int64_t num_cols) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= num_rows || columns[i] < 0 || columns[i] >= num_cols) {
      return absl::InvalidArgumentError(absl::StrCat("place ", i, " is (", rows[i], ", ",
                                                     columns[i], ") of [", num_rows, ", ", num_cols,
                                                     "]"));
    }
  }
  return absl::OkStatus();
}

// Of a batch's segments none may have rows both before `first_row`, where queries begin, and from
// there on.
inline absl::Status CheckQueryRows(absl::Span<const Segment> segments, int64_t first_row) {
  for (size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    if (segment.begin < first_row && segment.begin + segment.size > first_row) {
      return absl::InvalidArgumentError(absl::StrCat("segment ", s, " from row ", segment.begin,
                                                     " on has its queries on both ",
                                                     "sides of row ", first_row));
    }
  }
  return absl::OkStatus();
}

// q and out [the last of T, heads * head_dim], k and v [T, kv_heads * head_dim], heads a multiple
// of kv_heads.
inline absl::Status CheckAttention(DeviceView<const float> q, DeviceView<const float> k,
                                   DeviceView<const float> v, const DeviceBatch& batch,
                                   const AttentionShape& shape, DeviceView<const float> out) {
  if (shape.num_heads <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0 ||
      shape.num_heads % shape.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention over ", shape.num_heads, " heads, ", shape.num_kv_heads,
                     " key-value heads and head size ", shape.head_dim,
                     ": all must be positive and the first a multiple of the second"));
  }
  const int64_t query_cols = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t key_cols = int64_t{shape.num_kv_heads} * shape.head_dim;
  for (const absl::Status& status :
       {CheckShape("attention query", q, std::min(q.rows, batch.rows()), query_cols),
        CheckShape("attention key", k, batch.rows(), key_cols),
        CheckShape("attention value", v, batch.rows(), key_cols),
        CheckShape("attention output", out, q.rows, query_cols)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

inline absl::Status CheckGate(DeviceView<const float> gate, DeviceView<const float> up,
                              DeviceView<const float> out) {
  const absl::Status gates = CheckShape("gates", gate, out.rows, out.cols);
  return gates.ok() ? CheckShape("what is gated", up, out.rows, out.cols) : gates;
}

inline absl::Status CheckSoftCap(float cap) {
  if (cap > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a soft cap is ", cap, ", expected above 0"));
}

inline absl::Status CheckRopeSettings(const RopeSettings& settings, int64_t num_positions) {
  const size_t rotated = 2 * settings.inverse_frequency.size();
  const bool fits = settings.head_dim == 0 || static_cast<size_t>(settings.head_dim) >= rotated;
  if (rotated > 0 && fits && num_positions >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rotary embedding of ", num_positions, " positions and head size ",
                   settings.head_dim, " with ", settings.inverse_frequency.size(), " frequencies"));
}

// `last_position`: the largest of the batch.
inline absl::Status CheckRope(const DeviceBatch& batch, int32_t last_position,
                              const RopeTable& table, DeviceView<const float> x) {
  if (x.rows == batch.rows() && x.cols % table.head_dim() == 0 &&
      last_position < table.num_positions()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "rotary embedding of [", x.rows, ", ", x.cols, "] with head size ", table.head_dim(), " in ",
      batch.rows(), " rows, up to position ", last_position, " of ", table.num_positions()));
}

}  // namespace lwq
