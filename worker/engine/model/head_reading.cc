#include "worker/engine/model/head_reading.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// One model's sums over the vocabulary, by row.
struct SideSums {
  std::unique_ptr<DeviceBuffer<float>> top;
  std::unique_ptr<DeviceBuffer<int32_t>> best;
  std::unique_ptr<DeviceBuffer<double>> total;
  // Against the first side; null there.
  std::unique_ptr<DeviceBuffer<float>> gap_top;
  std::unique_ptr<DeviceBuffer<double>> gap;
};

template <typename T>
absl::StatusOr<std::vector<T>> OnHost(Device* device, const DeviceBuffer<T>& buffer) {
  std::vector<T> host(static_cast<size_t>(buffer.span().size));
  LWQ_RETURN_IF_ERROR(device->Download(buffer.span(), absl::MakeSpan(host)));
  return host;
}

template <typename T>
absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> OnDevice(Device* device,
                                                          const std::vector<T>& host) {
  LWQ_ASSIGN_OR_RETURN(auto out, device->NewBuffer<T>(1, static_cast<int64_t>(host.size())));
  LWQ_RETURN_IF_ERROR(device->Upload(absl::MakeConstSpan(host), out->span()));
  return out;
}

class Reading {
 public:
  Reading(const HeadPass& pass, absl::Span<const TokenTarget> targets)
      : pass_(pass),
        targets_(targets),
        spec_(pass.sides[0].decoder->spec()),
        device_(pass.sides[0].decoder->device()),
        num_rows_(pass.rows.empty() ? pass.sides[0].hidden.rows
                                    : static_cast<int64_t>(pass.rows.size())) {}

  absl::StatusOr<HeadReading> Run() {
    LWQ_RETURN_IF_ERROR(CheckTargets());
    LWQ_RETURN_IF_ERROR(Reserve());
    LWQ_RETURN_IF_ERROR(RunHeadPass(pass_, [this](const LogitTile& tile) { return Take(tile); }));
    return Finish();
  }

 private:
  absl::Status CheckTargets() const {
    for (const TokenTarget& target : targets_) {
      if (target.token < 0 || target.token >= spec_.vocab_size) {
        return Failure(
            reasons::kTokenOutOfRange,
            absl::StrCat("token ", target.token, " is outside the model's vocabulary of ",
                         spec_.vocab_size, "; does the tokenizer belong to the model?"));
      }
      if (target.row < 0 || target.row >= num_rows_) {
        return absl::InvalidArgumentError(
            absl::StrCat("row ", target.row, " of ", num_rows_, " is to be followed"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Reserve() {
    for (size_t s = 0; s < pass_.sides.size(); ++s) {
      SideSums& side = sums_.emplace_back();
      LWQ_ASSIGN_OR_RETURN(side.top, device_->NewBuffer<float>(1, num_rows_));
      LWQ_ASSIGN_OR_RETURN(side.best, device_->NewBuffer<int32_t>(1, num_rows_));
      LWQ_ASSIGN_OR_RETURN(side.total, device_->NewBuffer<double>(1, num_rows_));
      if (s == 0) continue;
      LWQ_ASSIGN_OR_RETURN(side.gap_top, device_->NewBuffer<float>(1, num_rows_));
      LWQ_ASSIGN_OR_RETURN(side.gap, device_->NewBuffer<double>(1, num_rows_));
    }
    return SortTargets();
  }

  // In the order in which tiles meet them, with their places inside their tiles.
  absl::Status SortTargets() {
    const int64_t tokens = TokensPerTile(spec_), rows = RowsPerTile(spec_);
    const auto tile_of = [&](size_t i) {
      return std::pair(targets_[i].token / tokens, targets_[i].row / rows);
    };
    order_.resize(targets_.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t a, size_t b) { return tile_of(a) < tile_of(b); });
    std::vector<int32_t> row_in_tile, token_in_tile;
    for (const size_t i : order_) {
      row_in_tile.push_back(static_cast<int32_t>(targets_[i].row % rows));
      token_in_tile.push_back(static_cast<int32_t>(targets_[i].token % tokens));
    }
    LWQ_ASSIGN_OR_RETURN(row_in_tile_, OnDevice(device_, row_in_tile));
    LWQ_ASSIGN_OR_RETURN(token_in_tile_, OnDevice(device_, token_in_tile));
    LWQ_ASSIGN_OR_RETURN(picked_,
                         device_->NewBuffer<float>(1, static_cast<int64_t>(targets_.size())));
    return absl::OkStatus();
  }

  absl::Status Take(const LogitTile& tile) {
    const SideSums& side = sums_[tile.side];
    const int64_t begin = tile.first_row, count = tile.logits.rows;
    LWQ_RETURN_IF_ERROR(device_->SumLogits(
        tile.logits, tile.first_token,
        {side.top->span().Part(begin, count), side.best->span().Part(begin, count),
         side.total->span().Part(begin, count)}));
    if (tile.side > 0) {
      LWQ_RETURN_IF_ERROR(device_->SumLogitGaps(
          tile.first, sums_[0].top->span().Part(begin, count), tile.logits, tile.first_token,
          {side.gap_top->span().Part(begin, count), side.gap->span().Part(begin, count)}));
    }
    return tile.side + 1 == pass_.sides.size() ? PickTargets(tile) : absl::OkStatus();
  }

  absl::Status PickTargets(const LogitTile& tile) {
    const int64_t end_token = tile.first_token + tile.logits.cols;
    const int64_t end_row = tile.first_row + tile.logits.rows;
    const size_t begin = next_target_;
    while (next_target_ < order_.size() && targets_[order_[next_target_]].token < end_token &&
           targets_[order_[next_target_]].row < end_row) {
      ++next_target_;
    }
    const int64_t count = static_cast<int64_t>(next_target_ - begin);
    if (count == 0) return absl::OkStatus();
    const int64_t first = static_cast<int64_t>(begin);
    return device_->Pick(tile.logits, row_in_tile_->span().Part(first, count),
                         token_in_tile_->span().Part(first, count),
                         picked_->span().Part(first, count));
  }

  // Logarithm of the sum of exp(logit), by row.
  absl::StatusOr<std::vector<double>> LogTotals(const SideSums& side) const {
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> top, OnHost(device_, *side.top));
    LWQ_ASSIGN_OR_RETURN(std::vector<double> log_total, OnHost(device_, *side.total));
    for (size_t r = 0; r < log_total.size(); ++r) log_total[r] = top[r] + std::log(log_total[r]);
    return log_total;
  }

  absl::StatusOr<HeadReading> Finish() const {
    HeadReading reading;
    std::vector<std::vector<double>> log_totals;
    for (const SideSums& side : sums_) {
      LWQ_ASSIGN_OR_RETURN(log_totals.emplace_back(), LogTotals(side));
      LWQ_ASSIGN_OR_RETURN(reading.best.emplace_back(), OnHost(device_, *side.best));
    }
    LWQ_ASSIGN_OR_RETURN(const std::vector<double> total, OnHost(device_, *sums_[0].total));
    for (size_t s = 1; s < sums_.size(); ++s) {
      LWQ_ASSIGN_OR_RETURN(std::vector<double> kl, OnHost(device_, *sums_[s].gap));
      for (size_t r = 0; r < kl.size(); ++r) {
        kl[r] = kl[r] / total[r] - (log_totals[0][r] - log_totals[s][r]);
      }
      reading.kl.push_back(std::move(kl));
    }
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> picked, OnHost(device_, *picked_));
    reading.log_probability.resize(targets_.size());
    for (size_t i = 0; i < order_.size(); ++i) {
      const size_t target = order_[i];
      reading.log_probability[target] =
          picked[i] - log_totals.back()[static_cast<size_t>(targets_[target].row)];
    }
    return reading;
  }

  const HeadPass& pass_;
  const absl::Span<const TokenTarget> targets_;
  const DecoderSpec& spec_;
  Device* const device_;
  const int64_t num_rows_;
  std::vector<SideSums> sums_;
  std::vector<size_t> order_;                                           // of targets
  std::unique_ptr<DeviceBuffer<int32_t>> row_in_tile_, token_in_tile_;  // in that order
  std::unique_ptr<DeviceBuffer<float>> picked_;
  size_t next_target_ = 0;
};

}  // namespace

absl::StatusOr<HeadReading> ReadHead(const HeadPass& pass, absl::Span<const TokenTarget> targets) {
  return Reading(pass, targets).Run();
}

}  // namespace lwq
