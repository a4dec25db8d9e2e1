// RefineBlock of the reference device: each step as its definition, sums in double.
#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/engine/device/reference/reference_device.h"
#include "worker/engine/device/scale_grid.h"

namespace lwq {
namespace {

// One row of the block. steps[j] = code - zero, so that a value is scale * steps.
class RowRefinement {
 public:
  RowRefinement(const HostRefinementBlock& block, int64_t row)
      : block_(block),
        row_(row),
        size_(block.residual.cols),
        group_size_(block.grid.GroupSizeFor(size_)),
        residual_(block.residual.Row(row), block.residual.Row(row) + size_),
        steps_(size_) {}

  double Run() {
    uint8_t* codes = block_.codes.Row(row_);
    float* change = block_.change.Row(row_);
    for (int64_t g = 0; g < size_ / group_size_; ++g) {
      float& scale = block_.scales.Row(row_)[g];
      const float zero =
          block_.grid.symmetric ? SymmetricZero(block_.grid.bits) : block_.zeros.Row(row_)[g];
      const int64_t begin = g * group_size_, end = begin + group_size_;
      for (int64_t j = begin; j < end; ++j) {
        steps_[j] = codes[j] - zero;
        change[j] = -scale * static_cast<float>(steps_[j]);
      }
      if (block_.refit_scales) RefitScale(begin, end, scale);
      for (int64_t j = begin; j < end; ++j) RefineCode(j, scale, zero);
      for (int64_t j = begin; j < end; ++j) {
        codes[j] = static_cast<uint8_t>(steps_[j] + zero);
        change[j] += scale * static_cast<float>(steps_[j]);
      }
    }
    return gain_;
  }

 private:
  double H(int64_t i, int64_t j) const { return block_.h.Row(i)[j]; }

  void RefitScale(int64_t begin, int64_t end, float& scale) {
    std::vector<double> moment(size_, 0.0);  // H times the steps of this group
    double cross = 0, square = 0;
    for (int64_t i = 0; i < size_; ++i) {
      for (int64_t j = begin; j < end; ++j) moment[i] += H(i, j) * steps_[j];
    }
    for (int64_t j = begin; j < end; ++j) {
      cross += residual_[j] * steps_[j];
      square += moment[j] * steps_[j];
    }
    if (!(square > 0)) return;
    const float fitted = SnapScale(static_cast<float>(scale + cross / square));
    const double difference = double{fitted} - scale;
    const double gain = difference * (2 * cross - difference * square);
    if (!(gain > 0)) return;
    gain_ += gain;
    scale = fitted;
    for (int64_t i = 0; i < size_; ++i) residual_[i] -= difference * moment[i];
  }

  void RefineCode(int64_t j, float scale, float zero) {
    const double target = steps_[j] + residual_[j] / (H(j, j) * scale);
    const double top = LargestCode(block_.grid.bits);
    const double best = std::clamp(std::nearbyint(target), double{-zero}, top - zero);
    const double difference = scale * (best - steps_[j]);
    gain_ += difference * (2 * residual_[j] - difference * H(j, j));
    steps_[j] = best;
    for (int64_t i = 0; i < size_; ++i) residual_[i] -= difference * H(j, i);
  }

  const HostRefinementBlock& block_;
  const int64_t row_, size_, group_size_;
  std::vector<double> residual_, steps_;
  double gain_ = 0;
};

}  // namespace

absl::Status ReferenceDevice::RefineBlock(const RefinementBlock& block) {
  const HostRefinementBlock b(space_, block);
  for (int64_t r = 0; r < b.residual.rows; ++r) b.gain[r] += RowRefinement(b, r).Run();
  return absl::OkStatus();
}

}  // namespace lwq
