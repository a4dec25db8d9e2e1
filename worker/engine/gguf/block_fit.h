// Weights to blocks: first the scales and minima of a block, then the codes under them. The two are
// apart so that an error feedback (GPTQ) can fit a block's scales once and then round column by
// column.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/gguf/level_set.h"

namespace lwq {

enum class GgufFit {
  // Scales from the extremes of each sub-block, importances unread. The types without sub-blocks
  // give gguf-py's own bytes.
  kReference,
  // Scales and minima that make the sum of importance * (value - stored value)^2 small: sub-blocks
  // by search with closed-form refits, then the block's F16 scale and the whole multiples together.
  // Never above kReference by that sum.
  kSearch
};

// Fits and rounds blocks of one integer type. Immutable, thread-safe; results depend on nothing but
// the arguments.
class BlockFitter {
 public:
  // `type` has a shape; it lives as long as the program.
  BlockFitter(const GgufTypeDef& type, GgufFit fit)
      : type_(type), fit_(fit), levels_(*type.shape) {}

  const GgufTypeDef& type() const { return type_; }

  // Scales, minima and codes of one block. `values` [block_size] are finite; `importance`
  // [block_size] is finite and not negative, or empty for equal ones. Where a sub-block's are all
  // zero they count as equal.
  void Fit(absl::Span<const float> values, absl::Span<const float> importance,
           GgufBlock* block) const;

 private:
  const GgufTypeDef& type_;
  GgufFit fit_;
  LevelSet levels_;
};

// One block's scales and minima, fixed, to round single values under.
class BlockGrid {
 public:
  struct Rounded {
    uint8_t code;
    float value;  // what the file will say
  };
  // Reads `block`'s scales and minima, not its codes.
  BlockGrid(const GgufTypeDef& type, const GgufBlock& block);

  // Values whose codes are chosen together: a cell of the type's codebook, without one a value.
  int cell_size() const {
    return levels_.codebook() == nullptr ? 1 : levels_.codebook()->cell_size();
  }
  // The codes of the cell that begins at the block's value `first`, of least error by `weights`;
  // [cell_size()] each. Only with a codebook.
  void RoundCell(int first, const float* values, const float* weights, uint8_t* codes) const;
  float ValueOf(int i, uint8_t code) const {
    const int j = i / sub_block_size_;
    return steps_[j] * shape_.levels[code] - offsets_[j];
  }
  // Without a codebook: `value` as the i-th of the block; any float is fine.
  Rounded Round(int i, float value) const {
    const int j = i / sub_block_size_;
    const int code = levels_.NearestCode((value + offsets_[j]) * inverse_steps_[j]);
    return {static_cast<uint8_t>(code),
            steps_[j] * static_cast<float>(shape_.levels[static_cast<size_t>(code)]) - offsets_[j]};
  }

 private:
  const GgufBlockShape& shape_;
  LevelSet levels_;
  int sub_block_size_;
  float steps_[kMaxGgufSubBlocks];
  float inverse_steps_[kMaxGgufSubBlocks];
  float offsets_[kMaxGgufSubBlocks];
};

// A row of `values`, a multiple of the type's block size, to RowBytes of `bytes`. Float types only
// round. `importance` is of each column, or empty.
void QuantizeRow(const GgufTypeDef& type, GgufFit fit, absl::Span<const float> values,
                 absl::Span<const float> importance, uint8_t* bytes);

}  // namespace lwq
