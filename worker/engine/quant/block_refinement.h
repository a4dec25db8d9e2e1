// One block of one row of Q, moved to where the calibrated error (w - q) H (w - q)^T is least while
// the rest of the row stays: its codes one by one, and its scales and minima in closed form
// (CDQuant, arXiv 2406.17542, for the codes; the scales of super-blocks are our addition). No step
// is taken that does not lower the error; the error of the weights themselves is not looked at.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// Value i of a block, as the file will say it.
inline float StoredValue(const GgufTypeDef& type, const GgufBlock& block, int i) {
  const int j = i / type.sub_block_size();
  return block.Step(j) * static_cast<float>(type.shape->levels[block.codes[i]]) - block.Offset(j);
}

// Not thread-safe; results depend on nothing but the arguments.
class BlockRefinement {
 public:
  // `h` [count, count]: a square piece of H on its diagonal, symmetric; `residual` [count]: the
  // same columns of (w - q) H, which is kept up to date. The block's values are those from `first`
  // on of its columns. Borrows everything; `block` is packable before and after.
  BlockRefinement(const GgufTypeDef& type, ConstMatrixView h, int64_t first, float* residual,
                  GgufBlock* block);

  // Each returns what the error fell by.
  // Every code once, in order, to its best place under the scales as they are; with a codebook
  // every cell.
  double MoveCodes();
  // The scale and minimum of every sub-block with all its codes, and then what multiplies them: F16
  // scale and minimum of the block.
  double MoveScales();

 private:
  // A sub-block's step and offset as some scale and minimum give them.
  struct Line {
    uint16_t scale, min;  // F16
    int sub_scale, sub_min;
    float Step() const { return F16ToFloat(scale) * static_cast<float>(sub_scale); }
    float Offset() const { return F16ToFloat(min) * static_cast<float>(sub_min); }
  };
  // A sub-block on a line.
  struct Trial {
    Line line;
    double gain = 0;
    float values[kMaxGgufBlock];
    uint8_t codes[kMaxGgufBlock];
  };
  // The error as a quadratic in a sub-block's step and offset, its codes as they are.
  struct Quadratic {
    double ll = 0, l1 = 0, one = 0;  // levels and ones through H
    double lr = 0, r = 0;            // and with the residual
    double BestStep(bool has_offset) const;
    double BestOffset(double step_change) const { return (step_change * l1 - r) / one; }
    double Gain(double step_change, double offset_change) const {
      return 2 * (step_change * lr - offset_change * r) - step_change * step_change * ll +
             offset_change * (2 * step_change * l1 - offset_change * one);
    }
  };

  bool has_min() const { return shape_.max_sub_min > 0; }
  float H(int i, int k) const { return h_.Row(first_ + i)[first_ + k]; }
  void SetValue(int i, float value);
  double MoveCells();
  void MoveCellsOnto(int begin, float step, float* residual, Trial* trial) const;
  Quadratic QuadraticOf(int sub_block) const;
  void TryLine(int sub_block, const Line& line, Trial* best) const;
  void TryLineFrom(int sub_block, const Line& line, bool keep_codes, Trial* best) const;
  void TryMultiples(int sub_block, Trial* best) const;
  std::vector<Line> MultiplesAround(int sub_block, const Quadratic& q) const;
  void TryScales(Trial* best) const;
  double MoveSubBlock(int sub_block);
  double MoveBlockScales();

  const GgufTypeDef& type_;
  const GgufBlockShape& shape_;
  const LevelSet levels_;
  const int size_;  // of a sub-block
  const ConstMatrixView h_;
  const int64_t first_;
  float* const residual_;
  GgufBlock& block_;
  float values_[kMaxGgufBlock];
};

}  // namespace lwq
