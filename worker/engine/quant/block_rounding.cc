// With act-order the blocks' scales are fitted beforehand, on the weights as they were, and columns
// go by descending diagonal of H; so the scales of all blocks of a row are at hand at once. Without
// it a block is fitted when its first column is reached, on the weights as updated so far. The
// search for scales is weighted with the damped diagonal of H either way.
//
// The errors that GPTQ pushes on are those of what the file will say, so sub-block scales and
// minima that are themselves rounded are made up for like any other error.
//
// Memory besides the weight: a slab of rows in the host and as a working copy, its blocks' parts,
// and the rows made so far; for types with cells a large block's rows of U.
#include "worker/engine/quant/block_rounding.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace lwq {
namespace {

constexpr int64_t kSlabRows = 2048;
constexpr int64_t kRowsPerTask = 4;
constexpr int64_t kLargeBlock = BlockedFactor::kBlock;
static_assert(kLargeBlock % kMaxGgufBlock == 0, "a block lies in one large block");

// What is summed over rows, in their order, so that no sum depends on threads.
struct RowSums {
  double error = 0;   // squared, of the stored values
  double square = 0;  // of the weights
  double loss = 0;    // the calibrated error before sweeps
  double gain = 0;    // what sweeps took off it
};

void AddError(const GgufTypeDef& type, const float* weights, const uint8_t* bytes, int64_t cols,
              std::vector<float>& stored, RowSums& sums) {
  stored.resize(static_cast<size_t>(cols));
  DequantizeRow(type, bytes, cols, stored.data());
  for (int64_t c = 0; c < cols; ++c) {
    const double difference = double{stored[static_cast<size_t>(c)]} - weights[c];
    sums.error += difference * difference;
    sums.square += double{weights[c]} * weights[c];
  }
}

float Dot(const float* a, const float* b, int64_t count) {
  constexpr int64_t kLanes = 8;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) sums[l] += a[i + l] * b[i + l];
  }
  for (int64_t l = 0; i < count; ++i, ++l) sums[l] += a[i] * b[i];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// A weight on its way to blocks, a slab of rows at a time.
class BlockRun {
 public:
  BlockRun(Device* device, DeviceView<const float> weight, const GgufTypeDef& type, GgufFit fit)
      : device_(device),
        weight_(weight),
        type_(type),
        fitter_(type, fit),
        fit_(fit),
        row_bytes_(type.RowBytes(weight.cols)),
        blocks_per_row_(weight.cols / type.block_size),
        cell_size_(type.shape->codebook == nullptr ? 1 : type.shape->codebook().cell_size()) {}

  // `statistics` null: to nearest.
  absl::StatusOr<BlockLinear> Run(DeviceSpan<const float> column_weight,
                                  const InputStatistics* statistics, const BlockMethod& method) {
    if (column_weight.size > 0) {
      importance_.resize(static_cast<size_t>(column_weight.size));
      LWQ_RETURN_IF_ERROR(device_->Download(column_weight, absl::MakeSpan(importance_)));
    }
    BlockLinear out;
    out.bytes.resize(static_cast<size_t>(weight_.rows * row_bytes_));
    RowSums total;
    for (int64_t first = 0; first < weight_.rows; first += kSlabRows) {
      const DeviceView<const float> rows =
          weight_.Rows(first, std::min(kSlabRows, weight_.rows - first));
      uint8_t* bytes = reinterpret_cast<uint8_t*>(out.bytes.data()) + first * row_bytes_;
      LWQ_RETURN_IF_ERROR(RoundSlab(rows, statistics, method, bytes));
      for (const RowSums& row : sums_) {
        total.error += row.error;
        total.square += row.square;
        total.loss += row.loss;
        total.gain += row.gain;
      }
    }
    out.record.relative_weight_error = total.square > 0 ? total.error / total.square : 0;
    out.record.square = total.square;
    out.record.refinement_gain = total.gain;
    out.record.calibrated_error = total.loss - total.gain;
    return out;
  }

 private:
  absl::Status RoundSlab(DeviceView<const float> rows, const InputStatistics* statistics,
                         const BlockMethod& method, uint8_t* bytes) {
    slab_ = Matrix(rows.rows, rows.cols);
    LWQ_RETURN_IF_ERROR(device_->Download(rows, slab_.view()));
    sums_.assign(static_cast<size_t>(rows.rows), RowSums());
    if (statistics != nullptr) {
      blocks_.assign(static_cast<size_t>(rows.rows * blocks_per_row_), GgufBlock());
      LWQ_RETURN_IF_ERROR(RoundFor(*statistics, method, rows));
    }
    ForEachRow([&](int64_t r) {
      uint8_t* out = bytes + r * row_bytes_;
      if (statistics == nullptr) {
        QuantizeRow(type_, fit_, RowOf(slab_, r), importance_, out);
      } else {
        for (int64_t b = 0; b < blocks_per_row_; ++b) {
          type_.shape->pack(BlockAt(r, b), out + b * type_.block_bytes);
        }
      }
      std::vector<float> stored;
      AddError(type_, slab_.Row(r), out, slab_.cols(), stored, sums_[static_cast<size_t>(r)]);
    });
    return absl::OkStatus();
  }

  // Fills the slab's blocks.
  absl::Status RoundFor(const InputStatistics& statistics, const BlockMethod& method,
                        DeviceView<const float> rows) {
    if (statistics.act_order() || !method.feedback) FitAllBlocks();
    if (method.feedback) LWQ_RETURN_IF_ERROR(FeedBack(rows, statistics));
    BlockMethod swept = method;
    if (!WorthSweeping(type_)) swept.sweeps = 0;
    // Feedback sums the loss as it goes; without it the loss is a product of its own.
    const bool measured = swept.sweeps > 0 || !method.feedback;
    if (statistics.hessian() == nullptr || !measured) return absl::OkStatus();
    swept.refinement = method.refinement && fit_ == GgufFit::kSearch;
    const size_t count = static_cast<size_t>(rows.rows);
    std::vector<double> gains(count, 0), losses(method.feedback ? 0 : count, 0);
    const BlockRows slab{slab_.view(), absl::MakeSpan(blocks_), absl::MakeSpan(gains),
                         absl::MakeSpan(losses)};
    LWQ_RETURN_IF_ERROR(DescendBlocks(device_, type_, statistics, swept, slab));
    for (size_t r = 0; r < gains.size(); ++r) sums_[r].gain = gains[r];
    for (size_t r = 0; r < losses.size(); ++r) sums_[r].loss = losses[r];
    return absl::OkStatus();
  }

  // Scales and codes, on the weights as they are.
  void FitAllBlocks() {
    ForEachRow([&](int64_t r) {
      for (int64_t b = 0; b < blocks_per_row_; ++b) FitBlock(r, b, RowOf(slab_, r));
    });
  }

  // Columns in the order of processing.
  absl::Status FeedBack(DeviceView<const float> rows, const InputStatistics& statistics) {
    const int64_t cols = rows.cols;
    places_.resize(static_cast<size_t>(cols));
    for (size_t j = 0; j < places_.size(); ++j) {
      places_[static_cast<size_t>(statistics.order()[j])] = static_cast<int32_t>(j);
    }
    LWQ_ASSIGN_OR_RETURN(const auto work, device_->NewMatrix(rows.rows, cols));
    LWQ_ASSIGN_OR_RETURN(const auto error,
                         device_->NewMatrix(rows.rows, std::min(kLargeBlock, cols)));
    LWQ_RETURN_IF_ERROR(device_->GatherColumns(rows, statistics.device_order(), work->view()));
    const BlockedFactor& factor = *statistics.factor();
    for (int64_t begin = 0; begin < cols; begin += kLargeBlock) {
      const int64_t count = std::min(kLargeBlock, cols - begin);
      // With act-order the rest of a cell may be anywhere behind.
      const int64_t read = has_cells() ? cols - begin : count;
      Matrix columns(rows.rows, read), u(count, count);
      LWQ_RETURN_IF_ERROR(device_->Download(work->view().Cols(begin, read), columns.view()));
      LWQ_RETURN_IF_ERROR(
          device_->Download(factor.u->view().Rows(begin, count).Cols(begin, count), u.view()));
      Matrix behind;
      if (read > count) {
        LWQ_ASSIGN_OR_RETURN(behind, FactorBehind(factor, begin, count, read - count));
      }
      const absl::Span<const int32_t> order =
          absl::MakeConstSpan(statistics.order()).subspan(static_cast<size_t>(begin));
      ForEachRow(
          [&](int64_t r) { RoundColumns(r, order, u, behind, statistics.act_order(), columns); });
      if (begin + count == cols) break;
      const DeviceView<float> errors = error->view().Cols(0, count);
      LWQ_RETURN_IF_ERROR(device_->Upload(columns.view().Cols(0, count), errors));
      LWQ_RETURN_IF_ERROR(device_->SubtractLinear(
          errors, factor.RowsFrom(begin), work->view().Cols(begin + count, cols - begin - count)));
    }
    return absl::OkStatus();
  }

  // Of a large block's rows of U what is of the columns behind it, a row for each of those.
  absl::StatusOr<Matrix> FactorBehind(const BlockedFactor& factor, int64_t begin, int64_t count,
                                      int64_t num_behind) {
    Matrix transposed(num_behind, count);
    for (int64_t first = 0; first < num_behind; first += kLargeBlock) {
      Matrix part(count, std::min(kLargeBlock, num_behind - first));
      LWQ_RETURN_IF_ERROR(device_->Download(
          factor.u->view().Rows(begin, count).Cols(begin + count + first, part.cols()),
          part.view()));
      for (int64_t j = 0; j < count; ++j) {
        for (int64_t k = 0; k < part.cols(); ++k) transposed.Row(first + k)[j] = part.Row(j)[k];
      }
    }
    return transposed;
  }

  // Rounds a row's columns of one large block, whose values `columns` has; it has their errors
  // afterwards, scaled as U wants them. `order`: where each column stands in the weight. Both go on
  // to the row's end where cells may lie there; those behind the block are as the blocks before
  // left them, and `behind` (FactorBehind) tells what this one's errors add.
  void RoundColumns(int64_t r, absl::Span<const int32_t> order, const Matrix& u,
                    const Matrix& behind, bool fitted, Matrix& columns) {
    const int64_t count = u.cols();
    float* values = columns.Row(r);
    std::vector<std::optional<BlockGrid>> grids(static_cast<size_t>(blocks_per_row_));
    double loss = 0;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t column = order[static_cast<size_t>(j)];
      const int64_t b = column / type_.block_size;
      std::optional<BlockGrid>& grid = grids[static_cast<size_t>(b)];
      if (!grid.has_value()) {
        // Without act-order this is the block's first column, and all of it lies here.
        if (!fitted) {
          fitter_.Fit({values + j, static_cast<size_t>(type_.block_size)}, ImportanceOf(b),
                      &BlockAt(r, b));
        }
        grid.emplace(type_, BlockAt(r, b));
      }
      const float stored = has_cells() ? RoundInCell(r, column, *grid, behind, columns)
                                       : RoundAlone(r, column, *grid, values[j]);
      const float* row = u.Row(j);
      const float error = (values[j] - stored) / row[j];
      loss += double{error} * error;
      for (int64_t k = j + 1; k < count; ++k) values[k] -= error * row[k];
      values[j] = error;
    }
    sums_[static_cast<size_t>(r)].loss += loss;
  }

  float RoundAlone(int64_t r, int64_t column, const BlockGrid& grid, float value) {
    const int in_block = static_cast<int>(column % type_.block_size);
    const BlockGrid::Rounded rounded = grid.Round(in_block, value);
    BlockAt(r, column / type_.block_size).codes[in_block] = rounded.code;
    return rounded.value;
  }

  // When the first of a cell's columns has its turn all its codes are chosen, on the values as they
  // are then; the others' turn makes up for what is left of their errors. `columns`: the row's
  // values from the large block's first on, and the errors of those that have had their turn.
  float RoundInCell(int64_t r, int64_t column, const BlockGrid& grid, const Matrix& behind,
                    const Matrix& columns) {
    GgufBlock& block = BlockAt(r, column / type_.block_size);
    const int64_t first = column - column % cell_size_;
    const int in_block = static_cast<int>(column % type_.block_size);
    int64_t earliest = places_[static_cast<size_t>(first)];
    for (int64_t k = 1; k < cell_size_; ++k) {
      earliest = std::min<int64_t>(earliest, places_[static_cast<size_t>(first + k)]);
    }
    if (earliest == places_[static_cast<size_t>(column)]) {
      const int64_t begin = earliest / kLargeBlock * kLargeBlock;
      float values[Codebook::kMaxCell], weights[Codebook::kMaxCell];
      for (int64_t k = 0; k < cell_size_; ++k) {
        const size_t at = static_cast<size_t>(first + k);
        values[k] = columns.Row(r)[places_[at] - begin];
        const int64_t beyond = places_[at] - begin - kLargeBlock;
        if (beyond >= 0) {
          values[k] -= Dot(columns.Row(r), behind.Row(beyond), earliest - begin);
        }
        weights[k] = importance_.empty() ? 1.0f : importance_[at];
      }
      const int at = in_block - static_cast<int>(column - first);
      grid.RoundCell(at, values, weights, block.codes + at);
    }
    return grid.ValueOf(in_block, block.codes[in_block]);
  }

  bool has_cells() const { return cell_size_ > 1; }

  void FitBlock(int64_t r, int64_t b, absl::Span<const float> row) {
    const size_t size = static_cast<size_t>(type_.block_size);
    fitter_.Fit(row.subspan(static_cast<size_t>(b) * size, size), ImportanceOf(b), &BlockAt(r, b));
  }

  absl::Span<const float> ImportanceOf(int64_t b) const {
    const size_t size = static_cast<size_t>(type_.block_size);
    if (importance_.empty()) return {};
    return absl::MakeConstSpan(importance_).subspan(static_cast<size_t>(b) * size, size);
  }
  GgufBlock& BlockAt(int64_t r, int64_t b) {
    return blocks_[static_cast<size_t>(r * blocks_per_row_ + b)];
  }
  static absl::Span<const float> RowOf(const Matrix& matrix, int64_t r) {
    return {matrix.Row(r), static_cast<size_t>(matrix.cols())};
  }
  void ForEachRow(const std::function<void(int64_t)>& body) {
    device_->host_threads().ParallelForBlocks(slab_.rows(), kRowsPerTask,
                                              [&](int64_t begin, int64_t end) {
                                                for (int64_t r = begin; r < end; ++r) body(r);
                                              });
  }

  Device* const device_;
  const DeviceView<const float> weight_;
  const GgufTypeDef& type_;
  const BlockFitter fitter_;
  const GgufFit fit_;
  const int64_t row_bytes_;
  const int64_t blocks_per_row_;
  const int64_t cell_size_;        // values whose codes are chosen together
  std::vector<float> importance_;  // of columns; empty: equal
  std::vector<int32_t> places_;    // of columns: when each has its turn
  // Of the slab in work.
  Matrix slab_;  // its weights
  std::vector<RowSums> sums_;
  std::vector<GgufBlock> blocks_;
};

}  // namespace

absl::StatusOr<BlockLinear> RoundToBlocks(Device* device, DeviceView<const float> weight,
                                          const GgufTypeDef& type, GgufFit fit,
                                          DeviceSpan<const float> column_weight) {
  return BlockRun(device, weight, type, fit).Run(column_weight, nullptr, {});
}

absl::StatusOr<BlockLinear> RoundToBlocksFor(const InputStatistics& statistics,
                                             const BlockMethod& method, Device* device,
                                             DeviceView<const float> weight,
                                             const GgufTypeDef& type, GgufFit fit) {
  BlockRun run(device, weight, type, fit);
  return run.Run(statistics.column_weights(), &statistics, method);
}

}  // namespace lwq
